// Open ports with something around each call that has an effect: to tell it, to time it, to die at it.
import type { Observable, ObservableInput } from 'rxjs';
import type { OpenPorts } from '../../src/pipeline/ingest.js';
import type { PartitionState } from '../../src/model/state.js';
import type { Claim, PreparedInsert } from '../../src/ports.js';

export interface PortCall {
  readonly what: 'claim' | 'write' | 'insert' | 'readBack' | 'fill' | 'commit';
  readonly topic: string;
  readonly partition: number;
  readonly detail: string;
  /** Of a write: the offset that it settles, when it settles more than the one before. */
  readonly settles?: number;
}

/** Called when the port is; `call` makes the call when what it gives is subscribed to. */
export type Around = <T>(of: PortCall, call: () => ObservableInput<T>) => Observable<T>;

export function aroundPorts(ports: OpenPorts, around: Around): OpenPorts {
  const { source, sink, store } = ports;
  const frozenOf = (frozen: PreparedInsert, at: Pick<PortCall, 'topic' | 'partition' | 'detail'>): PreparedInsert => ({
    insert: () => around({ what: 'insert', ...at }, () => frozen.insert()),
    tokenDoubt: (nowMs) => frozen.tokenDoubt(nowMs),
    get readBackWhenInDoubt() {
      return frozen.readBackWhenInDoubt;
    },
    insertMissing: (missing) => around({ what: 'insert', ...at }, () => frozen.insertMissing(missing)),
    readBack: (tokenDoubt) => around({ what: 'readBack', ...at }, () => frozen.readBack(tokenDoubt)),
    fill: (missing) => around({ what: 'fill', ...at }, () => frozen.fill(missing)),
    release: () => frozen.release(),
  });
  return {
    source: {
      ...source,
      commit: (assignment, next) =>
        around({ what: 'commit', topic: assignment.topic, partition: assignment.partition, detail: `${next}` }, () =>
          source.commit(assignment, next),
        ),
    },
    sink: {
      describe: (topic) => sink.describe(topic),
      prepare: (batch) => {
        const {
          assignment: { topic, partition },
          afterOffset,
          lastOffset,
        } = batch;
        return frozenOf(sink.prepare(batch), { topic, partition, detail: `${afterOffset + 1}-${lastOffset}` });
      },
      close: () => sink.close(),
    },
    store: store && {
      ...store,
      claim: (key, owner) =>
        around({ what: 'claim', topic: key.topic, partition: key.partition, detail: owner }, () =>
          store.claim(key, owner),
        ),
      write: (claim, state) => around(writeOf(claim, state), () => store.write(claim, state)),
    },
    close: () => ports.close(),
  };
}

function writeOf({ key, state: before }: Claim, state: PartitionState): PortCall {
  const detail = `settled ${state.settled}, ${state.pending.length} in doubt`;
  const settles = state.settled === undefined || state.settled === before.settled ? {} : { settles: state.settled };
  return { what: 'write', topic: key.topic, partition: key.partition, detail, ...settles };
}
