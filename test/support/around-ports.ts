// Open ports with something around each call that has an effect: to tell it, to time it, to die at it.
import type { Observable, ObservableInput } from 'rxjs';
import type { OpenPorts } from '../../src/ingest.js';
import type { FrozenInsert } from '../../src/ports.js';

export interface PortCall {
  readonly what: 'claim' | 'write' | 'insert' | 'readBack' | 'fill' | 'commit';
  readonly partition: number;
  readonly detail: string;
}

/** Called when the port is; `call` makes the call when what it gives is subscribed to. */
export type Around = <T>(of: PortCall, call: () => ObservableInput<T>) => Observable<T>;

export function aroundPorts(ports: OpenPorts, around: Around): OpenPorts {
  const { source, sink, store } = ports;
  const frozenOf = (frozen: FrozenInsert, partition: number, detail: string): FrozenInsert => ({
    insert: () => around({ what: 'insert', partition, detail }, () => frozen.insert()),
    tokenDoubt: (nowMs) => frozen.tokenDoubt(nowMs),
    get readBackWhenInDoubt() {
      return frozen.readBackWhenInDoubt;
    },
    readBack: (tokenDoubt) => around({ what: 'readBack', partition, detail }, () => frozen.readBack(tokenDoubt)),
    fill: (missing, round) => around({ what: 'fill', partition, detail }, () => frozen.fill(missing, round)),
    release: () => frozen.release(),
  });
  return {
    source: {
      ...source,
      commit: (assignment, next) => around({ what: 'commit', partition: assignment.partition, detail: `${next}` }, () => source.commit(assignment, next)),
    },
    sink: {
      describe: (topic) => sink.describe(topic),
      freeze: (batch) => frozenOf(sink.freeze(batch), batch.assignment.partition, `${batch.afterOffset + 1}-${batch.lastOffset}`),
      close: () => sink.close(),
    },
    store: store && {
      ...store,
      claim: (key, owner) => around({ what: 'claim', partition: key.partition, detail: owner }, () => store.claim(key, owner)),
      write: (claim, state) =>
        around({ what: 'write', partition: claim.key.partition, detail: `settled ${state.settled}, ${state.pending.length} in doubt` }, () => store.write(claim, state)),
    },
    close: () => ports.close(),
  };
}
