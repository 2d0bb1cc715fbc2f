/**
 * The simulated state store: the memory store that ships, behind calls that take time and can go wrong.
 * Imports: errors, ports, rxjs, state.
 */
import { Observable, from, type ObservableInput } from 'rxjs';
import { IngestError } from '../errors.js';
import type { Claim, StateKey, StateStore } from '../ports.js';
import { memoryStore, type MemoryNodes } from '../state/memory.js';
import type { SimulatedProcess } from './process.js';
import type { InvariantChecker } from './invariant-checker.js';

export interface StoreSurroundings {
  readonly nodes: MemoryNodes;
  readonly watch: InvariantChecker;
  isStoreDown(): boolean;
}

export function simulatedStore(process: SimulatedProcess, world: StoreSurroundings): StateStore {
  const memory = memoryStore(world.nodes);
  const reach = <T>(input: ObservableInput<T>): T => {
    if (world.isStoreDown()) throw new IngestError('KCR_STORE_UNREACHABLE', 'the store is down');
    return valueOf(input);
  };
  return {
    name: 'simulated',
    claim: (key, owner) =>
      deferred(() => {
        world.watch.claiming(key, owner);
        return process.call({
          port: 'claim',
          partition: key.partition,
          what: () => `${key.partition} as ${owner}`,
          effect: () => {
            const claim = reach<Claim>(memory.claim(key, owner));
            world.watch.claimed(claim);
            return claim;
          },
        });
      }),
    write: (claim, state) =>
      deferred(() => {
        const { key } = claim;
        world.watch.writing(claim);
        return process.call({
          port: 'write',
          partition: key.partition,
          what: () =>
            `${key.partition}: settled ` +
            `${state.settled ?? 'none'}${state.pending.map(({ first, last, excluded }) => `, in doubt ${first}-${last}${excluded.length === 0 ? '' : ` without ${excluded.join(',')}`}`).join('')}`,
          detail: () => JSON.stringify([claim.owner, claim.version, state]),
          effect: () => {
            const next = reach<Claim>(memory.write(claim, state));
            world.watch.written(key, state);
            return next;
          },
        });
      }),
    read: (key: StateKey) => memory.read(key),
    close: () => Promise.resolve(),
  };
}

function deferred<T>(make: () => Observable<T>): Observable<T> {
  return new Observable<T>((subscriber) => make().subscribe(subscriber));
}

/** What an observable that answers at once gives. */
export function valueOf<T>(input: ObservableInput<T>): T {
  const values: T[] = [];
  const errors: unknown[] = [];
  from(input).subscribe({ next: (value) => values.push(value), error: (error: unknown) => errors.push(error) });
  if (errors.length > 0) throw errors[0] as Error;
  return values[0]!;
}
