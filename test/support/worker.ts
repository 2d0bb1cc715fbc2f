// A worker as a process of its own that tells its effects one by one, before each is made and once it is answered:
// `node --import tsx test/support/worker.ts <config.json>`. Each line of its standard output is a `Told`. SIGTERM drains.
import { readFileSync, writeSync } from 'node:fs';
import { defer, finalize, from, tap, type Observable, type ObservableInput } from 'rxjs';
import { arrange } from '../../src/arrange.js';
import { checkConfig } from '../../src/config.js';
import { asIngestError } from '../../src/errors.js';
import { openPorts, type OpenPorts } from '../../src/ingest.js';
import type { FrozenInsert } from '../../src/ports.js';

export interface Told {
  readonly what: 'claim' | 'write' | 'insert' | 'readBack' | 'fill' | 'commit' | 'assigned' | 'lost' | 'delivered' | 'halted' | 'ended';
  readonly stage?: 'begins' | 'done' | 'failed' | 'dropped';
  readonly partition?: number;
  readonly detail?: string;
}

function tell(told: Told): void {
  writeSync(1, `${JSON.stringify(told)}\n`);
}

/** The call, told when it is made (which is when it is subscribed to), and when it ends. */
function telling<T>(told: Told, call: () => ObservableInput<T>): Observable<T> {
  return defer(() => {
    tell({ ...told, stage: 'begins' });
    let isOver = false;
    const over = (end: Partial<Told>): void => {
      isOver = true;
      tell({ ...told, ...end });
    };
    return from(call()).pipe(
      tap({ complete: () => over({ stage: 'done' }), error: (error: unknown) => over({ stage: 'failed', detail: asIngestError(error, 'KCR_INTERNAL', 'not ours').code }) }),
      finalize(() => {
        if (!isOver) over({ stage: 'dropped' });
      }),
    );
  });
}

function tellingPorts({ source, sink, store, close }: OpenPorts): OpenPorts {
  const frozenOf = (frozen: FrozenInsert, partition: number, detail: string): FrozenInsert => ({
    insert: () => telling({ what: 'insert', partition, detail }, () => frozen.insert()),
    tokenDoubt: (nowMs) => frozen.tokenDoubt(nowMs),
    get readBackWhenInDoubt() {
      return frozen.readBackWhenInDoubt;
    },
    readBack: (tokenDoubt) => telling({ what: 'readBack', partition, detail }, () => frozen.readBack(tokenDoubt)),
    fill: (missing, round) => telling({ what: 'fill', partition, detail }, () => frozen.fill(missing, round)),
    release: () => frozen.release(),
  });
  return {
    source: {
      ...source,
      commit: (assignment, next) => telling({ what: 'commit', partition: assignment.partition, detail: `${next}` }, () => source.commit(assignment, next)),
    },
    sink: {
      describe: (topic) => sink.describe(topic),
      freeze: (batch) => frozenOf(sink.freeze(batch), batch.assignment.partition, `${batch.afterOffset + 1}-${batch.lastOffset}`),
      close: () => sink.close(),
    },
    store: store && {
      ...store,
      claim: (key, owner) => telling({ what: 'claim', partition: key.partition }, () => store.claim(key, owner)),
      write: (claim, state) =>
        telling({ what: 'write', partition: claim.key.partition, detail: `settled ${state.settled}, ${state.pending.length} in doubt` }, () => store.write(claim, state)),
    },
    close,
  };
}

const config = checkConfig(JSON.parse(readFileSync(process.argv[2]!, 'utf8')));
const ports = tellingPorts(await openPorts(config));
process.on('SIGTERM', () => ports.source.drain());
arrange(ports, {
  ...config,
  group: config.kafka.groupId,
  owner: `worker-${process.pid}`,
  report: (event) => {
    if (event.kind === 'assigned' || event.kind === 'lost') tell({ what: event.kind, partition: event.assignment.partition });
  },
}).subscribe({
  next: (outcome) => {
    const { kind, assignment: { partition } } = outcome;
    tell({ what: kind, partition, detail: kind === 'halted' ? outcome.error.message : `${outcome.afterOffset + 1}-${outcome.lastOffset}` });
  },
  error: (error: unknown) => {
    tell({ what: 'ended', stage: 'failed', detail: String(error) });
    process.exit(1);
  },
  complete: () => {
    void ports.close().then(() => {
      tell({ what: 'ended', stage: 'done' });
      process.exit(0);
    });
  },
});
