/**
 * Room: where each partition begins and under which topic id: what the group committed, or an end of the log. It asks
 * and, where nothing was committed, writes down the place; who is told is run.ts.
 */
import { IngestError } from '../errors.js';
import type { TopicPartition } from './assignor.js';
import type { Membership, Session } from './membership.js';
import type { SourceSettings } from './options.js';
import { committedOffsets, EARLIEST, LATEST, listOffsets, type Beyond } from './positions.js';
import { knownTopic } from './topic-ids.js';
import type { Wire } from './wire.js';

export interface Place extends TopicPartition {
  readonly next: number;
  /** Undefined: the brokers give none. */
  readonly topicId: string | undefined;
  /** The id that this process read the topic under until now, where Kafka has another one now. */
  readonly recreatedFrom: string | undefined;
}

interface Start extends TopicPartition {
  readonly topicId: string | undefined;
  readonly recreatedFrom: string | undefined;
}

export class Places {
  readonly #wire: Wire;
  readonly #settings: SourceSettings;
  readonly #membership: Membership;
  /** How many partitions each topic had when this process saw it first. */
  readonly #firstCounts = new Map<string, number>();
  /** The topic's id under which each of our partitions is read. */
  #ids = new Map<string, string | undefined>();

  constructor(wire: Wire, settings: SourceSettings, membership: Membership) {
    this.#wire = wire;
    this.#settings = settings;
    this.#membership = membership;
  }

  saw(topic: string, partitions: number): void {
    this.#firstCounts.set(topic, partitions);
  }

  /** Partitions that went to others are forgotten: what they make of a topic that was created anew is theirs. */
  keepOnly(partitions: readonly TopicPartition[]): void {
    const names = new Set(partitions.map(nameOf));
    this.#ids = new Map([...this.#ids].filter(([name]) => names.has(name)));
  }

  /** From now on the partition is read under this id. */
  begun(place: Place): void {
    this.#ids.set(nameOf(place), place.topicId);
  }

  /**
   * One attempt for all; a partition whose topic Kafka does not tell of is left out, and must be asked for again:
   * without its id another topic could be read in its place.
   *
   * The ids are asked first. Should a topic be created anew in between, then the place is fetched under an id that is
   * gone, and that is seen; the other way round an offset of the old log would be fetched from the new one.
   *
   * @throws `UnknownOutcome`, `KCR_FENCED`, and whatever brokers answer.
   */
  async of(session: Session, partitions: readonly TopicPartition[]): Promise<readonly Place[]> {
    await this.#wire.cluster.refreshMetadata();
    const starts = partitions.flatMap((partition) => this.#start(partition));
    if (starts.length === 0) return [];
    const { groupId, onReset, stateDecides } = this.#settings;
    const committed = await this.#membership.ask((coordinator) => committedOffsets(coordinator, groupId, starts));
    const nextOf = (start: Start) => committed.find((each) => isSame(each, start))?.next;
    const isAnew = ({ recreatedFrom }: Start) => recreatedFrom !== undefined && (stateDecides || onReset === 'restart');
    const open = starts.filter((start) => isAnew(start) || nextOf(start) === undefined);
    const early = open.filter((start) => isAnew(start) || this.#beginsEarly(start));
    const late = open.filter((start) => !early.includes(start));
    const { isolation } = this.#settings;
    const ends = [
      ...(await listOffsets(this.#wire, early, { timestamp: EARLIEST, isolation })),
      ...(await listOffsets(this.#wire, late, { timestamp: LATEST, isolation })),
    ];
    const places = starts.map((start) => ({ ...start, next: ends.find((each) => isSame(each, start))?.offset ?? nextOf(start) ?? 0 }));
    for (const place of places) {
      const known = nextOf(place);
      // The end of the log moves: what is produced while we are down must not be skipped the next time.
      const isHalted = place.recreatedFrom !== undefined && !isAnew(place);
      if (!isHalted && (known === undefined || (isAnew(place) && !stateDecides))) await this.writeDown(session, place);
    }
    return places;
  }

  /**
   * Commits the place, without metadata: only where there is none, or where nobody keeps a state there. In one attempt,
   * since a late copy of it would wipe out the state that a store has committed there meanwhile.
   */
  async writeDown(session: Session, { topic, partition, next }: TopicPartition & { readonly next: number }): Promise<void> {
    await this.#membership.commitOnce(session, { topic, partition, next, metadata: null });
  }

  #start({ topic, partition }: TopicPartition): Start[] {
    const known = knownTopic(this.#wire.cluster, topic);
    if (known === undefined || known.topicErrorCode !== 0) return [];
    const { topicId } = known;
    const before = this.#ids.get(nameOf({ topic, partition }));
    return [{ topic, partition, topicId, recreatedFrom: before === undefined || topicId === undefined || before === topicId ? undefined : before }];
  }

  /** A partition that was added while we were looking begins at its beginning, whatever the group begins at. */
  #beginsEarly({ topic, partition }: TopicPartition): boolean {
    return this.#settings.fromBeginning || partition >= (this.#firstCounts.get(topic) ?? Infinity);
  }
}

export function nameOf({ topic, partition }: TopicPartition): string {
  return `${topic}/${partition}`;
}

function isSame(a: TopicPartition, b: TopicPartition): boolean {
  return a.topic === b.topic && a.partition === b.partition;
}

/** What befell a topic while it was read. */
export type Reset =
  | { readonly kind: 'recreated'; readonly was: string; readonly topicId: string }
  | ({ readonly kind: 'truncated' } & Beyond);

export function resetError({ topic, partition }: TopicPartition, reset: Reset): IngestError {
  if (reset.kind === 'recreated') {
    const message = `The topic was deleted and created anew: it was read under the id ${reset.was}, Kafka has ${reset.topicId}`;
    return new IngestError('KCR_TOPIC_RESET', message, {
      topic, partition,
      hint: 'to ingest the new topic set the group\'s offsets to its beginning (kafka-consumer-groups.sh --reset-offsets --to-earliest) and start again; with onReset "restart" this happens by itself',
    });
  }
  const { wanted, logStart, logEnd } = reset;
  return new IngestError('KCR_TOPIC_RESET', `Offset ${wanted} is beyond the log, which begins at ${logStart} and ends at ${logEnd}: the topic was created anew or truncated`, {
    topic, partition, offset: wanted,
    hint: 'to go on where the log ends set onReset to "restart"; to read other records again reset the group\'s offsets while nobody is in it',
  });
}

