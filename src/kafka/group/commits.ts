/**
 * OffsetCommit requests. Commits that wait go together as one request, one request is under way at a time, and
 * none goes over the connection of the heartbeats. What an answer means for a commit is membership.ts.
 * Imports: kafka, kafka/connection.
 */
import { nameOf } from './assignor.js';
import { through, type KafkajsBroker } from '../connection/broker.js';
import { Gathered, type Outcome } from '../connection/gathered.js';
import type { KafkaLog } from '../options.js';
import { withErrors } from '../connection/partition-errors.js';
import { entryOf } from '../connection/list-offsets.js';
import { fenced, type CommitRequest } from './commit-request.js';
import type { JoinedGroup } from './generation.js';
import { commitOutcome, kafkaType, reasonOf } from '../connection/classify-error.js';

/** A commit as it waits. */
interface Waiting {
  readonly joined: JoinedGroup;
  readonly request: CommitRequest;
  /** Aborted: nobody may commit for this assignment any more. */
  readonly signal: AbortSignal | undefined;
}

/** How a commit failed. `isSent`: its bytes may have left this process. */
export class CommitFailure extends Error {
  override readonly name = 'CommitFailure';

  constructor(
    override readonly cause: unknown,
    readonly isSent: boolean,
  ) {
    super(reasonOf(cause));
  }
}

/**
 * A coordinator writes one request as one batch of records, which must not exceed the offsets topic's
 * `max.message.bytes` (1 MiB as a rule).
 */
const MAX_REQUEST_BYTES = 256 * 1024;
/** The fixed parts of a record in the offsets topic. */
const RECORD_BYTES = 64;

export interface CommitsPorts {
  readonly groupId: string;
  readonly log: KafkaLog;
  /** Calls the group's coordinator. */
  readonly ask: <T>(call: (coordinator: KafkajsBroker) => Promise<T>) => Promise<T>;
  /** Is told what a partition's commit failed with: it may say that another broker coordinates the group. */
  readonly suspect: (thrown: unknown) => void;
}

export class Commits {
  readonly #ports: CommitsPorts;
  readonly #gathered: Gathered<Waiting, void>;

  constructor(ports: CommitsPorts) {
    this.#ports = ports;
    this.#gathered = new Gathered({
      call: (items) => this.#send(items),
      take: (waiting) => fitting(ports.groupId, waiting),
    });
  }

  /**
   * One attempt.
   *
   * @throws `KCR_FENCED` when the signal was aborted before it was sent; `CommitFailure`.
   */
  send(joined: JoinedGroup, request: CommitRequest, signal: AbortSignal | undefined): Promise<void> {
    return this.#gathered.ask({ joined, request, signal });
  }

  async #send(items: readonly Waiting[]): Promise<Outcome<void>[]> {
    const isGoing = items.map(({ signal }) => signal?.aborted !== true);
    const going = items.filter((_, i) => isGoing[i]);
    const failures =
      going[0] === undefined
        ? undefined
        : await this.#request(
            going[0].joined,
            going.map(({ request }) => request),
          );
    return items.map(({ request }, i): Outcome<void> => {
      if (isGoing[i] !== true) return { error: fenced(request.topic, request.partition, request.next, undefined) };
      const failure = failures?.get(nameOf(request));
      return failure === undefined ? { value: undefined } : { error: failure };
    });
  }

  /** The failures, by name of the partition. */
  async #request(
    { memberId, generationId }: JoinedGroup,
    requests: readonly CommitRequest[],
  ): Promise<ReadonlyMap<string, CommitFailure>> {
    const { groupId, log, ask, suspect } = this.#ports;
    const topics = new Map<string, { partition: number; offset: string; metadata: string | null }[]>();
    for (const { topic, partition, next, metadata } of requests)
      entryOf(topics, topic).push({ partition, offset: String(next), metadata });
    const request = {
      groupId,
      groupGenerationId: generationId,
      memberId,
      topics: [...topics].map(([topic, partitions]) => ({ topic, partitions })),
    };
    let isSent = false;
    try {
      const { errors } = await ask((coordinator) =>
        withErrors(
          noting(coordinator, () => (isSent = true)),
          (broker) => broker.offsetCommit(request),
        ),
      );
      for (const error of new Set([...errors.values()].map(kafkaType))) suspect({ type: error });
      return new Map([...errors].map(([name, error]) => [name, new CommitFailure(error, true)]));
    } catch (thrown) {
      log('warn', 'a request to commit failed', {
        groupId,
        partitions: requests.length,
        reason: reasonOf(thrown),
        outcome: commitOutcome(thrown, isSent),
      });
      return new Map(requests.map((each) => [nameOf(each), new CommitFailure(thrown, isSent)]));
    }
  }
}

/**
 * Tells when the request is about to leave: a connection that breaks in this moment counts as one over which it was
 * sent.
 */
function noting(coordinator: KafkajsBroker, leaving: () => void): KafkajsBroker {
  return through(coordinator, (pool, kafka) => {
    const encode = async () => {
      leaving();
      return kafka.request.encode();
    };
    return pool.send({ ...kafka, request: { ...kafka.request, encode } });
  });
}

/**
 * So many of those that wait can go in one request: of one generation, each partition once, within the limit of bytes.
 * Those that were called off go along, and are not sent.
 */
function fitting(groupId: string, waiting: readonly Waiting[]): number {
  const names = new Set<string>();
  let of: JoinedGroup | undefined;
  let bytes = 0;
  for (const [i, { joined, request, signal }] of waiting.entries()) {
    if (signal?.aborted === true) continue;
    const { topic, metadata } = request;
    const name = nameOf(request);
    of ??= joined;
    bytes += RECORD_BYTES + groupId.length + topic.length + Buffer.byteLength(metadata ?? '');
    if (joined !== of || names.has(name) || (names.size > 0 && bytes > MAX_REQUEST_BYTES)) return i;
    names.add(name);
  }
  return waiting.length;
}
