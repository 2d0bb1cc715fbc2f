// Room: the servers of a small world as values: what they hold at a moment has a number, and what a request makes of it
// is found out once, by the simulated servers themselves, and looked up from then on.
import { SimulatedWorld, checkExactlyOnce, type Fate, type SavedServers } from '../../src/testing/index.js';
import {
  isOf,
  tableOf,
  textOf as outcomeText,
  type Content,
  type Owners,
  type SmallWorld,
  type Surroundings,
} from './owners.js';

export interface Finding {
  readonly kind: string;
  readonly what: string;
}

/** What came of a request. */
export interface Effect {
  readonly servers: number;
  /** The answer's number among the owners' outcomes. */
  readonly outcome: number;
  readonly findings: readonly Finding[];
}

interface Held {
  readonly saved: SavedServers;
  readonly around: Surroundings;
  readonly effects: Map<number, Effect & { readonly content: number; readonly taking: Taking }>;
  readonly seen: Map<number, Effect>;
  verdict?: readonly Finding[];
  restarted?: number;
}

/** How a request is taken. */
export interface Taking {
  readonly fate: (Fate & ('lose reply' | 'kill server' | 'kill server between')) | undefined;
  /** No later owner was given the partition yet. */
  readonly isCurrent: boolean;
  /** Nobody waits for the answer. */
  readonly isOrphan: boolean;
}

const fates = [undefined, 'lose reply', 'kill server', 'kill server between'] as const;

export class Servers {
  readonly #held: Held[] = [];
  readonly #ids = new Map<string, number>();
  readonly #referee: SimulatedWorld;

  constructor(
    private readonly small: SmallWorld,
    private readonly owners: Owners,
  ) {
    this.#referee = new SimulatedWorld({ partitions: small.records, table: tableOf(small) });
    this.#referee.group.isManual = true;
    this.#intern(this.#referee);
  }

  get count(): number {
    return this.#held.length;
  }

  saved(id: number): SavedServers {
    return this.#held[id]!.saved;
  }

  /** What an owner can look at. */
  around(id: number): Surroundings {
    return this.#held[id]!.around;
  }

  effect(id: number, content: number, taking: Taking): Effect {
    const { fate, isCurrent, isOrphan } = taking;
    const held = this.#held[id]!;
    const key = ((content * fates.length + fates.indexOf(fate)) * 2 + Number(isCurrent)) * 2 + Number(isOrphan);
    let effect = held.effects.get(key);
    if (effect === undefined) {
      const { sandbox, step, ordinal } = this.owners.contents[content]!;
      const { world } = sandbox;
      const before = world.violations.length;
      const outcome = this.owners.outcomeId(sandbox.effect(step, held.saved, fate, isCurrent));
      const findings = world.violations.slice(before).map(({ invariant, what }) => ({ kind: invariant, what }));
      if (isOrphan)
        world.watch.forgetClaims(
          (assignmentId) => isOf(ordinal, assignmentId) && watchedAsOver(held.saved, assignmentId),
        );
      effect = { servers: this.#intern(world), outcome, findings, content, taking };
      held.effects.set(key, effect);
    }
    return effect;
  }

  /** After the watch was told what an owner does. */
  seeing(id: number, calls: number): Effect {
    if (calls === 0) return { servers: id, outcome: 0, findings: [] };
    return this.#watched(id, calls, (world) => {
      const methods = world.watch as unknown as Record<string, (...args: readonly unknown[]) => void>;
      for (const { method, args } of this.owners.calls[calls]!) methods[method]!(...args);
    });
  }

  /** After an owner is gone: what it had claimed does not matter any more. */
  without(id: number, ordinal: number): number {
    return this.#watched(id, -ordinal, (world) => {
      world.watch.forget((assignmentId) => isOf(ordinal, assignmentId));
    }).servers;
  }

  /** After the server was killed while an insert of another partition was under way. */
  restarted(id: number): number {
    const held = this.#held[id]!;
    held.restarted ??= this.#numbered({
      ...held.saved,
      table: { ...held.saved.table, startedMs: held.saved.table.startedMs + 60_000 },
    });
    return held.restarted;
  }

  /** Every effect that was found out: on what, by what, and with what result. */
  *effects(): Generator<{
    readonly before: SavedServers;
    readonly after: SavedServers;
    readonly content: Content;
    readonly taking: Taking;
    readonly outcome: string;
  }> {
    for (const { saved, effects } of this.#held) {
      for (const { content, taking, servers, outcome } of effects.values()) {
        yield {
          before: saved,
          after: this.saved(servers),
          content: this.owners.contents[content]!,
          taking,
          outcome: outcomeText(this.owners.outcomes[outcome]!),
        };
      }
    }
  }

  /** The table against the topic, and what is left unsettled. */
  judge(id: number, only?: number): readonly Finding[] {
    const held = this.#held[id]!;
    if (held.verdict === undefined) {
      this.#referee.restore(held.saved);
      const { missing, doubled } = checkExactlyOnce(this.#referee);
      const isMeant = (name: string) => only === undefined || name.startsWith(`${only}:`);
      const open = this.small.records.flatMap((count, partition) => {
        const settled = this.#referee.watch.settled(partition);
        return settled === count - 1 ? [] : [`${partition}: settled ${settled} of ${count - 1}`];
      });
      const kinds = { missing, doubled, unsettled: open };
      held.verdict = Object.entries(kinds).flatMap(([kind, names]) => {
        const what = names.filter(isMeant).join(' ');
        return what === '' ? [] : [{ kind, what }];
      });
    }
    return held.verdict;
  }

  #watched(id: number, key: number, see: (world: SimulatedWorld) => void): Effect {
    const held = this.#held[id]!;
    let effect = held.seen.get(key);
    if (effect === undefined) {
      const world = this.#referee;
      const before = world.violations.length;
      world.restore(held.saved);
      see(world);
      effect = {
        servers: this.#intern(world),
        outcome: 0,
        findings: world.violations.slice(before).map(({ invariant, what }) => ({ kind: invariant, what })),
      };
      held.seen.set(key, effect);
    }
    return effect;
  }

  #intern(world: SimulatedWorld): number {
    return this.#numbered(world.save());
  }

  #numbered(saved: SavedServers): number {
    const key = textOf(saved);
    let id = this.#ids.get(key);
    if (id === undefined) {
      id =
        this.#held.push({
          saved,
          around: { startedMs: saved.table.startedMs, committed: saved.committed },
          effects: new Map(),
          seen: new Map(),
        }) - 1;
      this.#ids.set(key, id);
    }
    return id;
  }
}

/** Nobody waits for the claim of an assignment that is over. */
function watchedAsOver({ watch }: SavedServers, assignmentId: number): boolean {
  return watch.lost.has(assignmentId);
}

/**
 * All that what comes next depends on. Of the watch not the topics of tokens and the blocks' sizes: there is one topic,
 * and one size.
 */
export function textOf({ nodes, table, committed, watch }: SavedServers): string {
  return JSON.stringify([
    [...nodes].sort(byKey).map(([key, { text, version }]) => [key, version, text]),
    table.rows.map(({ partition, offset }) => partition * 100 + offset).sort((a, b) => a - b),
    [...table.tokens.keys()].sort(),
    table.startedMs,
    [...committed].sort(byKey),
    [...watch.recorded.keys()].sort(),
    [...watch.states].sort(byKey),
    [...watch.lost].sort((a, b) => a - b),
    [...watch.torn].sort(),
    [...watch.taken].sort(),
    [...watch.claims]
      .filter(([assignmentId]) => !watch.lost.has(assignmentId))
      .sort(byKey)
      .map(([assignmentId, { state, resolved }]) => [assignmentId, state, [...resolved].sort()]),
  ]);
}

function byKey<K extends string | number>([a]: readonly [K, unknown], [b]: readonly [K, unknown]): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
