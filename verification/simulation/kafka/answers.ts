// Imports: the cluster and the bytes. What a broker answers to each kind of request, in the one version of it that this
// cluster speaks; written from Kafka's description of its protocol.
import { AnswerWriter, type RequestReader } from './bytes.js';
import type { Owner, VirtualClock } from './clock.js';
import { PORT, type Cluster } from './cluster.js';
import { OK } from './coordinator.js';
import type { Counters } from './counters.js';
import { fetch } from './fetching.js';
import type { Weather } from './weather.js';

export interface AcceptedCommit {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly metadata: string | null;
  readonly memberId: string;
  readonly generation: number;
}

/** What answers are made of. */
export interface Reply {
  readonly clock: VirtualClock;
  readonly cluster: Cluster;
  readonly weather: Weather;
  readonly counters: Counters;
  readonly broker: number;
  readonly owner: Owner | undefined;
  readonly serviceMs: (api: string) => number;
  readonly committed: (commit: AcceptedCommit) => void;
  /** Of a fetch: the quota that it exceeds, milliseconds; 0: none. */
  readonly throttleMs: () => number;
  /** Nothing more is read from the connection for so long. */
  readonly mute: (ms: number) => void;
}

export type Send = (body: AnswerWriter) => void;
type Answer = (request: RequestReader, reply: Reply, send: Send) => void;

const GROUP_COORDINATOR_NOT_AVAILABLE = 15;
const NOT_COORDINATOR = 16;
const LOADING = 14;
const UNKNOWN_TOPIC = 3;
const LEADER_NOT_AVAILABLE = 5;
const NOT_LEADER = 6;
const NO_REPLICAS = 3;
const NO_ID = 'AAAAAAAAAAAAAAAAAAAAAA';

interface Api {
  readonly name: string;
  readonly version: number;
  /** From this version on lengths are compact. */
  readonly flexibleFrom: number;
  readonly answer: Answer;
}

const APIS: Readonly<Record<number, Api>> = {
  1: { name: 'Fetch', version: 13, flexibleFrom: 12, answer: fetch },
  2: { name: 'ListOffsets', version: 2, flexibleFrom: 6, answer: listOffsets },
  3: { name: 'Metadata', version: 10, flexibleFrom: 9, answer: metadata },
  8: { name: 'OffsetCommit', version: 5, flexibleFrom: 8, answer: offsetCommit },
  9: { name: 'OffsetFetch', version: 4, flexibleFrom: 6, answer: offsetFetch },
  10: { name: 'FindCoordinator', version: 1, flexibleFrom: 3, answer: findCoordinator },
  11: { name: 'JoinGroup', version: 5, flexibleFrom: 6, answer: joinGroup },
  12: { name: 'Heartbeat', version: 3, flexibleFrom: 4, answer: heartbeat },
  13: { name: 'LeaveGroup', version: 3, flexibleFrom: 4, answer: leaveGroup },
  14: { name: 'SyncGroup', version: 3, flexibleFrom: 4, answer: syncGroup },
  18: { name: 'ApiVersions', version: 2, flexibleFrom: 3, answer: apiVersions },
};

export const apiName = (apiKey: number): string => APIS[apiKey]?.name ?? `api ${apiKey}`;

export const isFlexible = (apiKey: number, version: number): boolean =>
  version >= (APIS[apiKey]?.flexibleFrom ?? Infinity);

/** ApiVersions' is never. */
export const isFlexibleHead = (apiKey: number, version: number): boolean =>
  apiKey !== 18 && isFlexible(apiKey, version);

export function answerTo(request: RequestReader, api: string, reply: Reply, send: Send): void {
  const known = APIS[request.apiKey];
  if (known === undefined || request.version > known.version)
    throw new Error(`${api} in version ${request.version} was not offered`);
  known.answer(request, reply, send);
}

function counted(reply: Reply, api: string, code: number): number {
  if (code !== OK) reply.counters.count(`${api} ${code}`);
  return code;
}

/** What keeps this broker from speaking for the group; 0: nothing. */
function groupTrouble(api: string, { cluster, clock, weather, broker, counters }: Reply): number {
  const code =
    cluster.coordinatorId !== broker
      ? NOT_COORDINATOR
      : clock.nowMs < cluster.loadsUntilMs
        ? LOADING
        : weather.refusalOf(api);
  if (code !== OK) counters.count(`${api} ${code}`);
  return code;
}

function apiVersions(_: RequestReader, __: Reply, send: Send): void {
  const oldest: Readonly<Record<number, number>> = { 1: 4 };
  const body = new AnswerWriter(false).int16(OK);
  body.list(Object.entries(APIS), ([key, { version }]) =>
    body
      .int16(Number(key))
      .int16(oldest[Number(key)] ?? 0)
      .int16(version),
  );
  send(body.int32(0));
}

function metadata(request: RequestReader, reply: Reply, send: Send): void {
  const asked = request.list(() => {
    request.id();
    const name = request.string() ?? '';
    request.tags();
    return name;
  });
  const { cluster, broker, weather } = reply;
  const view = cluster.view(broker);
  const body = new AnswerWriter(true).int32(0);
  body.list(view.brokers, (id) =>
    body
      .int32(id)
      .string(`broker-${id}`)
      .int32(PORT + id)
      .string(null)
      .tags(),
  );
  body.string('simulated').int32(1);
  body.list(asked, (name) => {
    const topic = view.topics.get(name);
    const code = counted(reply, 'Metadata', topic === undefined ? UNKNOWN_TOPIC : weather.refusalOf('Metadata'));
    body
      .int16(code)
      .string(name)
      .id(code === OK ? topic!.id : NO_ID)
      .int8(0);
    body.list(code === OK ? [...topic!.leaders.entries()] : [], ([partition, leader]) => {
      const isLed = leader > 0 && view.brokers.includes(leader);
      body
        .int16(counted(reply, 'Metadata', isLed ? OK : LEADER_NOT_AVAILABLE))
        .int32(partition)
        .int32(isLed ? leader : -1)
        .int32(0);
      for (let list = 0; list < NO_REPLICAS; list++) body.list([], () => undefined);
      body.tags();
    });
    body.int32(0).tags();
  });
  send(body.int32(0).tags());
}

function findCoordinator(_: RequestReader, reply: Reply, send: Send): void {
  const { cluster, weather } = reply;
  const id = cluster.coordinatorId;
  const isThere = id > 0 && cluster.broker(id).isUp;
  const code = counted(
    reply,
    'FindCoordinator',
    isThere ? weather.refusalOf('FindCoordinator') : GROUP_COORDINATOR_NOT_AVAILABLE,
  );
  send(
    new AnswerWriter(false)
      .int32(0)
      .int16(code)
      .string(null)
      .int32(code === OK ? id : -1)
      .string(code === OK ? `broker-${id}` : '')
      .int32(code === OK ? PORT + id : -1),
  );
}

function joinGroup(request: RequestReader, reply: Reply, send: Send): void {
  request.string();
  const [sessionMs, rebalanceMs, memberId] = [request.int32(), request.int32(), request.string() ?? ''];
  request.string();
  request.string();
  const [first] = request.list(() => ({ protocol: request.string() ?? '', metadata: request.data() }));
  const answer = (
    code: number,
    id: string,
    generation: number,
    leader: string,
    protocol: string,
    members: readonly { memberId: string; metadata: Buffer }[],
  ): void => {
    const body = new AnswerWriter(false)
      .int32(0)
      .int16(counted(reply, 'JoinGroup', code))
      .int32(generation)
      .string(protocol)
      .string(leader)
      .string(id);
    send(body.list(members, (member) => body.string(member.memberId).string(null).data(member.metadata)));
  };
  const trouble = groupTrouble('JoinGroup', reply);
  if (trouble !== OK) return answer(trouble, memberId, -1, '', '', []);
  reply.cluster.coordinator.join(
    { memberId, sessionMs, rebalanceMs, protocol: first?.protocol ?? '', metadata: first?.metadata ?? Buffer.alloc(0) },
    (joined) => answer(joined.code, joined.memberId, joined.generation, joined.leader, joined.protocol, joined.members),
  );
}

function syncGroup(request: RequestReader, reply: Reply, send: Send): void {
  request.string();
  const [generation, memberId] = [request.int32(), request.string() ?? ''];
  request.string();
  const assignments = new Map(request.list(() => [request.string() ?? '', request.data()] as const));
  const answer = (code: number, assignment: Buffer): void =>
    send(
      new AnswerWriter(false)
        .int32(0)
        .int16(counted(reply, 'SyncGroup', code))
        .data(assignment),
    );
  const trouble = groupTrouble('SyncGroup', reply);
  if (trouble !== OK) return answer(trouble, Buffer.alloc(0));
  reply.cluster.coordinator.sync(memberId, generation, assignments, (synced) => answer(synced.code, synced.assignment));
}

/** Codes that say that the member is not what it takes itself for: then it is not. */
const EXPELLING: ReadonlySet<number> = new Set([22, 25, 82]);

function heartbeat(request: RequestReader, reply: Reply, send: Send): void {
  request.string();
  const [generation, memberId] = [request.int32(), request.string() ?? ''];
  const { coordinator } = reply.cluster;
  let code = groupTrouble('Heartbeat', reply);
  if (EXPELLING.has(code)) coordinator.expel(memberId);
  if (code === OK) code = counted(reply, 'Heartbeat', coordinator.heartbeat(memberId, generation));
  send(new AnswerWriter(false).int32(0).int16(code));
}

function leaveGroup(request: RequestReader, reply: Reply, send: Send): void {
  request.string();
  const members = request.list(() => {
    const memberId = request.string() ?? '';
    request.string();
    return memberId;
  });
  const trouble = groupTrouble('LeaveGroup', reply);
  const body = new AnswerWriter(false).int32(0).int16(trouble);
  send(
    body.list(members, (memberId) =>
      body
        .string(memberId)
        .string(null)
        .int16(trouble === OK ? reply.cluster.coordinator.leave(memberId) : OK),
    ),
  );
}

function offsetCommit(request: RequestReader, reply: Reply, send: Send): void {
  request.string();
  const [generation, memberId] = [request.int32(), request.string() ?? ''];
  const topics = request.list(() => ({
    topic: request.string() ?? '',
    partitions: request.list(() => ({
      partition: request.int32(),
      offset: request.int64(),
      metadata: request.string() ?? null,
    })),
  }));
  const {
    cluster: { coordinator },
    weather,
    committed,
  } = reply;
  let code = groupTrouble('OffsetCommit', reply);
  if (EXPELLING.has(code)) coordinator.expel(memberId);
  if (code === OK) code = counted(reply, 'OffsetCommit', coordinator.mayCommit(memberId, generation));
  // Not replicated in time: it may be there all the same.
  const isTaken = code === OK || (code === 7 && coordinator.mayCommit(memberId, generation) === OK && weather.isDone());
  const body = new AnswerWriter(false).int32(0);
  body.list(topics, ({ topic, partitions }) =>
    body.string(topic).list(partitions, ({ partition, offset, metadata: text }) => {
      if (isTaken) {
        coordinator.committed.set(`${topic}/${partition}`, { offset, metadata: text });
        committed({ topic, partition, offset, metadata: text, memberId, generation });
      }
      body.int32(partition).int16(code);
    }),
  );
  send(body);
}

function offsetFetch(request: RequestReader, reply: Reply, send: Send): void {
  request.string();
  const topics = request.list(() => ({
    topic: request.string() ?? '',
    partitions: request.list(() => request.int32()),
  }));
  const code = groupTrouble('OffsetFetch', reply);
  const body = new AnswerWriter(false).int32(0);
  body.list(code === OK ? topics : [], ({ topic, partitions }) =>
    body.string(topic).list(partitions, (partition) => {
      const found = reply.cluster.coordinator.committed.get(`${topic}/${partition}`);
      body
        .int32(partition)
        .int64(found?.offset ?? -1)
        .string(found?.metadata ?? '')
        .int16(OK);
    }),
  );
  send(body.int16(code));
}

function listOffsets(request: RequestReader, reply: Reply, send: Send): void {
  request.int32();
  const isCommitted = request.int8() === 1;
  const topics = request.list(() => ({
    topic: request.string() ?? '',
    partitions: request.list(() => ({ partition: request.int32(), timestamp: request.int64() })),
  }));
  const { cluster, broker, weather } = reply;
  const body = new AnswerWriter(false).int32(0);
  body.list(topics, ({ topic, partitions }) =>
    body.string(topic).list(partitions, ({ partition, timestamp }) => {
      const found = cluster.topics.get(topic);
      const leader = found?.partitions[partition]?.leader;
      const code = counted(
        reply,
        'ListOffsets',
        leader === undefined ? UNKNOWN_TOPIC : leader !== broker ? NOT_LEADER : weather.refusalOf('ListOffsets'),
      );
      const ends = code === OK ? found!.log.ends(partition) : { start: -1, end: -1 };
      const latest = isCommitted && code === OK ? found!.log.lastStable(partition) : ends.end;
      body
        .int32(partition)
        .int16(code)
        .int64(-1)
        .int64(timestamp === -2 ? ends.start : latest);
    }),
  );
  send(body);
}
