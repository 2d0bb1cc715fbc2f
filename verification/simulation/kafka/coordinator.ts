// Imports: nothing of the product. A consumer group as its coordinator keeps it (Kafka's classic protocol): members,
// generations, sessions that run out, committed offsets; what is lost when another broker takes it over; and what a
// group is like once it has a member of the newer protocol (KIP-848).
import type { VirtualClock } from './clock.js';

export const OK = 0;
export const NOT_COORDINATOR = 16;
export const ILLEGAL_GENERATION = 22;
export const UNKNOWN_MEMBER_ID = 25;
export const REBALANCE_IN_PROGRESS = 27;
export const MEMBER_ID_REQUIRED = 79;

export interface JoinRequest {
  readonly memberId: string;
  readonly sessionMs: number;
  readonly rebalanceMs: number;
  readonly protocol: string;
  readonly metadata: Buffer;
}

export interface JoinAnswer {
  readonly code: number;
  readonly memberId: string;
  readonly generation: number;
  readonly leader: string;
  readonly protocol: string;
  readonly members: readonly { readonly memberId: string; readonly metadata: Buffer }[];
}

export interface SyncAnswer {
  readonly code: number;
  readonly assignment: Buffer;
}

export interface CommittedOffset {
  readonly offset: number;
  readonly metadata: string | null;
}

interface Member {
  readonly id: string;
  request: JoinRequest;
  assignment: Buffer;
  joining: ((answer: JoinAnswer) => void) | undefined;
  syncing: ((answer: SyncAnswer) => void) | undefined;
  isSynced: boolean;
  endSession: () => void;
}

export interface CoordinatorEvents {
  /** A member was given up. */
  expired(memberId: string): void;
  generation(generation: number, members: number): void;
}

type State = 'empty' | 'preparing' | 'completing' | 'stable';

interface Persisted {
  readonly generation: number;
  readonly leader: string;
  readonly members: readonly { readonly id: string; readonly request: JoinRequest; readonly assignment: Buffer }[];
}

const NOTHING = Buffer.alloc(0);

export class Coordinator {
  readonly committed = new Map<string, CommittedOffset>();
  generation = 0;
  state: State = 'empty';
  /** A member of the newer protocol is in it: the broker deals, and nobody is told of a new generation without need. */
  dealer: ((members: readonly JoinAnswer['members'][number][]) => ReadonlyMap<string, Buffer>) | undefined;
  readonly #members = new Map<string, Member>();
  readonly #promised = new Set<string>();
  #leader = '';
  #ids = 0;
  #persisted: Persisted = { generation: 0, leader: '', members: [] };
  #endPreparing: () => void = () => undefined;

  constructor(
    private readonly clock: VirtualClock,
    private readonly events: CoordinatorEvents,
    private readonly firstDelayMs: number,
  ) {}

  get members(): readonly string[] {
    return [...this.#members.keys()];
  }

  join(request: JoinRequest, reply: (answer: JoinAnswer) => void): void {
    const refuse = (code: number, memberId = request.memberId) =>
      reply({ code, memberId, generation: -1, leader: '', protocol: '', members: [] });
    if (request.memberId === '') {
      const id = `member-${++this.#ids}`;
      this.#promised.add(id);
      return refuse(MEMBER_ID_REQUIRED, id);
    }
    const known = this.#members.get(request.memberId);
    if (known === undefined) {
      if (!this.#promised.delete(request.memberId)) return refuse(UNKNOWN_MEMBER_ID);
      const member: Member = {
        id: request.memberId,
        request,
        assignment: NOTHING,
        joining: reply,
        syncing: undefined,
        isSynced: false,
        endSession: () => undefined,
      };
      this.#members.set(member.id, member);
      this.#renew(member);
      return this.#prepare();
    }
    const isChanged = !known.request.metadata.equals(request.metadata);
    const isLeader = known.id === this.#leader;
    known.request = request;
    this.#renew(known);
    if (this.state === 'stable' && !(this.dealer === undefined ? isChanged || isLeader : false))
      return reply(this.#joined(known));
    if (this.state === 'completing' && !isChanged) return reply(this.#joined(known));
    // A second request of the same member takes the place of the first.
    known.joining = reply;
    this.#prepare();
  }

  sync(
    memberId: string,
    generation: number,
    assignments: ReadonlyMap<string, Buffer>,
    reply: (answer: SyncAnswer) => void,
  ): void {
    const member = this.#members.get(memberId);
    if (member === undefined) return reply({ code: UNKNOWN_MEMBER_ID, assignment: NOTHING });
    if (generation !== this.generation) return reply({ code: ILLEGAL_GENERATION, assignment: NOTHING });
    if (this.state === 'preparing') return reply({ code: REBALANCE_IN_PROGRESS, assignment: NOTHING });
    this.#renew(member);
    member.isSynced = true;
    if (this.state === 'stable') return reply({ code: OK, assignment: member.assignment });
    member.syncing = reply;
    if (memberId === this.#leader) this.#assign(assignments);
  }

  heartbeat(memberId: string, generation: number): number {
    const member = this.#members.get(memberId);
    if (member === undefined) return UNKNOWN_MEMBER_ID;
    if (generation !== this.generation) return ILLEGAL_GENERATION;
    this.#renew(member);
    return this.state === 'preparing' ? REBALANCE_IN_PROGRESS : OK;
  }

  leave(memberId: string): number {
    if (this.#promised.delete(memberId)) return OK;
    if (!this.#members.has(memberId)) return UNKNOWN_MEMBER_ID;
    this.#remove(memberId);
    return OK;
  }

  /** May this member commit? Not whether the partitions are its own: no broker looks at that. */
  mayCommit(memberId: string, generation: number): number {
    if (generation < 0 && this.#members.size === 0) return OK;
    const member = this.#members.get(memberId);
    if (member === undefined) return UNKNOWN_MEMBER_ID;
    if (generation !== this.generation) return ILLEGAL_GENERATION;
    if (this.state === 'completing') return REBALANCE_IN_PROGRESS;
    this.#renew(member);
    return OK;
  }

  /** Everybody is to join again. */
  rebalance(): void {
    if (this.state === 'stable') this.#prepare();
  }

  expel(memberId: string): void {
    if (this.#members.has(memberId)) this.#remove(memberId);
  }

  /** Another broker takes the group over: it knows what was persisted, and nothing of who waits. */
  moved(): void {
    this.#endPreparing();
    for (const member of this.#members.values()) {
      member.endSession();
      member.joining?.({
        code: NOT_COORDINATOR,
        memberId: member.id,
        generation: -1,
        leader: '',
        protocol: '',
        members: [],
      });
      member.syncing?.({ code: NOT_COORDINATOR, assignment: NOTHING });
    }
    this.#members.clear();
    this.#promised.clear();
    const { generation, leader, members } = this.#persisted;
    this.generation = generation;
    this.#leader = leader;
    for (const { id, request, assignment } of members) {
      const member: Member = {
        id,
        request,
        assignment,
        joining: undefined,
        syncing: undefined,
        isSynced: true,
        endSession: () => undefined,
      };
      this.#members.set(id, member);
      this.#renew(member);
    }
    this.state = members.length === 0 ? 'empty' : 'stable';
  }

  #prepare(): void {
    if (this.state !== 'preparing') {
      const wasEmpty = this.state === 'empty';
      this.state = 'preparing';
      for (const member of this.#members.values()) {
        member.syncing?.({ code: REBALANCE_IN_PROGRESS, assignment: NOTHING });
        member.syncing = undefined;
      }
      if (wasEmpty && this.firstDelayMs > 0) {
        this.#endPreparing = this.clock.after(this.firstDelayMs, undefined, () => this.#complete());
        return;
      }
      const longestMs = Math.max(...[...this.#members.values()].map(({ request }) => request.rebalanceMs), 1);
      this.#endPreparing = this.clock.after(longestMs, undefined, () => this.#complete());
    }
    this.#completeWhenJoined();
  }

  #completeWhenJoined(): void {
    if (this.state !== 'preparing' || (this.generation === 0 && this.firstDelayMs > 0)) return;
    if ([...this.#members.values()].every(({ joining }) => joining !== undefined)) this.#complete();
  }

  #complete(): void {
    if (this.state !== 'preparing') return;
    this.#endPreparing();
    for (const [id, member] of this.#members) {
      if (member.joining !== undefined) continue;
      member.endSession();
      this.#members.delete(id);
      this.events.expired(id);
    }
    this.generation += 1;
    this.events.generation(this.generation, this.#members.size);
    if (this.#members.size === 0) {
      this.state = 'empty';
      this.#persist();
      return;
    }
    if (!this.#members.has(this.#leader)) this.#leader = [...this.#members.keys()][0]!;
    this.state = 'completing';
    const members = [...this.#members.values()];
    if (this.dealer !== undefined)
      this.#assign(this.dealer(members.map(({ id, request }) => ({ memberId: id, metadata: request.metadata }))));
    for (const member of members) {
      const { joining } = member;
      member.joining = undefined;
      member.isSynced = false;
      this.#renew(member);
      joining?.(this.#joined(member));
    }
    const { generation } = this;
    // Who was told and does not come is given up.
    this.clock.after(Math.max(...members.map(({ request }) => request.rebalanceMs)), undefined, () =>
      this.#expectSynced(generation),
    );
  }

  #expectSynced(generation: number): void {
    if (this.generation !== generation || this.state !== 'completing') return;
    for (const member of [...this.#members.values()]) if (!member.isSynced) this.#remove(member.id, true);
  }

  #joined(member: Member): JoinAnswer {
    const isLeader = this.dealer === undefined && member.id === this.#leader;
    const members = isLeader
      ? [...this.#members.values()].map(({ id, request }) => ({ memberId: id, metadata: request.metadata }))
      : [];
    return {
      code: OK,
      memberId: member.id,
      generation: this.generation,
      leader: this.dealer === undefined ? this.#leader : '',
      protocol: member.request.protocol,
      members,
    };
  }

  #assign(assignments: ReadonlyMap<string, Buffer>): void {
    for (const member of this.#members.values()) member.assignment = assignments.get(member.id) ?? NOTHING;
    this.state = 'stable';
    this.#persist();
    for (const member of this.#members.values()) {
      const { syncing } = member;
      member.syncing = undefined;
      syncing?.({ code: OK, assignment: member.assignment });
    }
  }

  #persist(): void {
    this.#persisted = {
      generation: this.generation,
      leader: this.#leader,
      members: [...this.#members.values()].map(({ id, request, assignment }) => ({ id, request, assignment })),
    };
  }

  #remove(memberId: string, isExpired = false): void {
    const member = this.#members.get(memberId);
    if (member === undefined) return;
    member.endSession();
    member.joining?.({ code: UNKNOWN_MEMBER_ID, memberId, generation: -1, leader: '', protocol: '', members: [] });
    member.syncing?.({ code: UNKNOWN_MEMBER_ID, assignment: NOTHING });
    this.#members.delete(memberId);
    if (isExpired) this.events.expired(memberId);
    if (this.#members.size === 0 && this.state !== 'preparing') {
      this.state = 'empty';
      this.#persist();
    } else if (this.state === 'preparing') this.#completeWhenJoined();
    else this.#prepare();
  }

  /** A session runs on from the last that was heard; who waits to join is alive. */
  #renew(member: Member): void {
    member.endSession();
    const expire = (): void => {
      if (this.#members.get(member.id) !== member) return;
      if (member.joining !== undefined) return this.#renew(member);
      this.#remove(member.id, true);
    };
    member.endSession = this.clock.after(member.request.sessionMs, undefined, expire);
  }
}
