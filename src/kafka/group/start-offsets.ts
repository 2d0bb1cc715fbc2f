/**
 * Where each partition begins and under which topic id: what the group committed, or an end of the log. It asks
 * and, where nothing was committed, writes down the place; who is told is group-member.ts.
 * Imports: errors, kafka, kafka/connection, model.
 */
import { IngestError } from '../../errors.js';
import { chosenOffset } from '../../model/state-codec.js';
import { nameOf, type TopicPartition } from './assignor.js';
import { grownTopics } from './deal.js';
import type { Membership } from './membership.js';
import type { SourceSettings } from '../options.js';
import { EARLIEST, LATEST, listOffsetsEach, type Beyond, type ListedOffsets } from '../connection/list-offsets.js';
import type { JoinedGroup } from './generation.js';
import { knownTopic, knownTopicId, partitionsOf } from '../connection/metadata.js';
import { reasonOf, classifyError } from '../connection/classify-error.js';
import type { KafkaConnection } from '../connection/kafka-connection.js';
import { breathe, eachInTurn } from '../connection/wait.js';

/** So many first commits are prepared in one turn of the event loop. */
const COMMITS_A_TURN = 1000;

export { nameOf } from './assignor.js';

export interface StartOffset extends TopicPartition {
  readonly next: number;
  /** What the group has committed; undefined: nothing, or only a place that was chosen as this one may be. */
  readonly committed: number | undefined;
  /** Undefined: the brokers give none. */
  readonly topicId: string | undefined;
  /** The id that this process read the topic under until now, where Kafka has another one now. */
  readonly recreatedFrom: string | undefined;
}

interface Start extends TopicPartition {
  readonly topicId: string | undefined;
  readonly recreatedFrom: string | undefined;
}

/** Where partitions begin, and those that must be asked for again. */
export interface Found {
  readonly startOffsets: readonly StartOffset[];
  readonly missing: readonly (TopicPartition & { readonly reason: string })[];
}

export class StartOffsets {
  readonly #kafka: KafkaConnection;
  readonly #settings: SourceSettings;
  readonly #membership: Membership;
  /** The topic's id under which each of our partitions is read. */
  #ids = new Map<string, string | undefined>();

  constructor(kafka: KafkaConnection, settings: SourceSettings, membership: Membership) {
    this.#kafka = kafka;
    this.#settings = settings;
    this.#membership = membership;
  }

  /** Partitions that went to others are forgotten: what they make of a topic that was recreated is theirs. */
  keepOnly(partitions: readonly TopicPartition[]): void {
    const names = new Set(partitions.map(nameOf));
    this.#ids = new Map([...this.#ids].filter(([name]) => names.has(name)));
  }

  /** From now on the partition is read under this id. */
  begun(place: StartOffset): void {
    this.#ids.set(nameOf(place), place.topicId);
  }

  /**
   * One attempt for all. A partition is missing when Kafka does not tell of its topic (without its id another topic
   * could be read in its place), or when the end of the log is needed that nobody leads: the others begin without it.
   *
   * The ids are asked first. Should a topic be recreated in between, then the place is fetched under an id that is
   * gone, and that is seen; the other way round an offset of the old log would be fetched from the new one.
   *
   * @throws `UnknownOutcome`, `KCR_FENCED`, and whatever brokers answer.
   */
  async of(joined: JoinedGroup, partitions: readonly TopicPartition[], signal: AbortSignal): Promise<Found> {
    await this.#kafka.cluster.refreshMetadata();
    // Each of these looks at thousands of partitions: others have their turn in between.
    await breathe();
    const topics = new Set(partitions.map(({ topic }) => topic));
    const told = new Set([...topics].filter((topic) => isTold(this.#kafka.cluster, topic)));
    const starts = partitions.filter(({ topic }) => told.has(topic)).map((partition) => this.#start(partition));
    const untold = partitions
      .filter(({ topic }) => !told.has(topic))
      .map((each) => ({ ...each, reason: 'Kafka does not tell of the topic' }));
    if (starts.length === 0) return { startOffsets: [], missing: untold };
    await breathe();
    const answers = await this.#membership.committed(starts);
    await breathe();
    const next = new Map(answers.map((each) => [nameOf(each), each.next]));
    const chosenBefore = new Set(answers.filter(({ metadata }) => metadata === chosenOffset).map(nameOf));
    const open = starts.filter((start) => this.#isRecreated(start) || next.get(nameOf(start)) === undefined);
    await breathe();
    const { offsets, errors } = await this.#ends(joined, open);
    await breathe();
    const untellable = open.filter((start) => errors.has(nameOf(start)));
    const startOffsets: StartOffset[] = [];
    await eachInTurn(starts, (start) => {
      const name = nameOf(start);
      if (errors.has(name)) return;
      const committed = next.get(name);
      const isProgress = !chosenBefore.has(name) && !offsets.has(name);
      const from = offsets.get(name) ?? committed ?? 0;
      startOffsets.push({ ...start, next: from, committed: isProgress ? committed : undefined });
    });
    // The end of the log moves: what is produced while we are down must not be skipped the next time.
    const chosen = startOffsets.filter((place) => {
      const isHalted = place.recreatedFrom !== undefined && !this.#isRecreated(place);
      return (
        !isHalted &&
        (next.get(nameOf(place)) === undefined || (this.#isRecreated(place) && !this.#settings.stateDecides))
      );
    });
    await this.writeDown(joined, chosen, signal);
    return {
      startOffsets,
      missing: [
        ...untold,
        ...untellable.map(({ topic, partition }) => ({
          topic,
          partition,
          reason: reasonOf(errors.get(nameOf({ topic, partition }))),
        })),
      ],
    };
  }

  /**
   * Commits the places, marked as chosen and not reached: only where there are none, or where nobody keeps a state
   * there. In one attempt, since a late copy of it would wipe out the state that a store has committed there meanwhile.
   */
  async writeDown(
    joined: JoinedGroup,
    startOffsets: readonly (TopicPartition & { readonly next: number })[],
    signal: AbortSignal,
  ): Promise<void> {
    const commits: Promise<void>[] = [];
    for (const { topic, partition, next } of startOffsets) {
      if (commits.length > 0 && commits.length % COMMITS_A_TURN === 0) await breathe();
      const commit = this.#membership.commitOnce(joined, { topic, partition, next, metadata: chosenOffset }, signal);
      commit.catch(() => undefined); // it may fail before all of them are waited for
      commits.push(commit);
    }
    await Promise.all(commits);
  }

  /** @throws what no retry mends; the error of each other partition stands under its name. */
  async #ends(joined: JoinedGroup, open: readonly Start[]): Promise<ListedOffsets> {
    if (open.length === 0) return { offsets: new Map(), errors: new Map() };
    const { isolation, fromBeginning } = this.#settings;
    const grown = fromBeginning ? new Set<string>() : (joined.grown ?? (await this.#grown(open)));
    const isEarly = (start: Start): boolean => fromBeginning || this.#isRecreated(start) || grown.has(start.topic);
    const early = await listOffsetsEach(this.#kafka, open.filter(isEarly), { timestamp: EARLIEST, isolation });
    await breathe();
    const late = await listOffsetsEach(
      this.#kafka,
      open.filter((start) => !isEarly(start)),
      { timestamp: LATEST, isolation },
    );
    const errors = new Map([...early.errors, ...late.errors]);
    for (const error of errors.values()) if (classifyError(error) === 'fatal') throw error;
    return { offsets: new Map([...early.offsets, ...late.offsets]), errors };
  }

  /** Who dealt out the partitions did not say which of them were added: another program, or a broker. */
  async #grown(open: readonly Start[]): Promise<ReadonlySet<string>> {
    const all = partitionsOf(this.#kafka.cluster, [...new Set(open.map(({ topic }) => topic))]);
    return new Set(grownTopics(all, { committed: await this.#membership.committed(all), errors: new Map() }));
  }

  #isRecreated({ recreatedFrom }: Start): boolean {
    const { onReset, stateDecides } = this.#settings;
    return recreatedFrom !== undefined && (stateDecides || onReset === 'restart');
  }

  #start({ topic, partition }: TopicPartition): Start {
    const topicId = knownTopicId(this.#kafka.cluster, topic);
    const before = this.#ids.get(nameOf({ topic, partition }));
    return {
      topic,
      partition,
      topicId,
      recreatedFrom: before === undefined || topicId === undefined || before === topicId ? undefined : before,
    };
  }
}

function isTold(cluster: KafkaConnection['cluster'], topic: string): boolean {
  return knownTopic(cluster, topic)?.topicErrorCode === 0;
}

/** What befell a topic while it was read. */
export type Reset =
  | { readonly kind: 'recreated'; readonly was: string; readonly topicId: string }
  | ({ readonly kind: 'truncated' } & Beyond);

export function resetError({ topic, partition }: TopicPartition, reset: Reset): IngestError {
  if (reset.kind === 'recreated') {
    const message = `The topic was deleted and recreated: it was read under the id ${reset.was}, Kafka has ${reset.topicId}`;
    return new IngestError('KCR_TOPIC_RESET', message, {
      topic,
      partition,
      hint:
        "to ingest the new topic set the group's offsets to its beginning (kafka-consumer-groups.sh " +
        '--reset-offsets --to-earliest) and start again; with onReset "restart" this happens by itself',
    });
  }
  const { wanted, logStart, logEnd } = reset;
  return new IngestError(
    'KCR_TOPIC_RESET',
    `Offset ${wanted} is beyond the log, which begins at ${logStart} and ends at ${logEnd}: the topic was ` +
      'recreated or truncated',
    {
      topic,
      partition,
      offset: wanted,
      hint:
        'to go on where the log ends set onReset to "restart"; to read other records again reset the group\'s ' +
        'offsets while nobody is in it',
    },
  );
}
