// A worker as a process of its own that tells its effects one by one, before each is made and once it is answered:
// `node --import tsx test/support/worker.ts <config.json>`. Each line of its standard output is a `Told`. SIGTERM drains.
import { readFileSync, writeSync } from 'node:fs';
import { defer, finalize, from, tap, type Observable, type ObservableInput } from 'rxjs';
import { checkConfig } from '../../src/config/config.js';
import { asIngestError } from '../../src/errors.js';
import { openPorts, pipelineOf } from '../../src/pipeline/ingest.js';
import { aroundPorts, type PortCall } from './around-ports.js';

export interface Told {
  readonly what: PortCall['what'] | 'assigned' | 'lost' | 'delivered' | 'halted' | 'ended';
  readonly stage?: 'begins' | 'done' | 'failed' | 'dropped';
  readonly partition?: number;
  readonly detail?: string;
}

function tell(told: Told): void {
  writeSync(1, `${JSON.stringify(told)}\n`);
}

/** The call, told when it is made (which is when it is subscribed to), and when it ends. */
function telling<T>(told: PortCall, call: () => ObservableInput<T>): Observable<T> {
  return defer(() => {
    tell({ ...told, stage: 'begins' });
    let isOver = false;
    const over = (end: Partial<Told>): void => {
      isOver = true;
      tell({ ...told, ...end });
    };
    return from(call()).pipe(
      tap({
        complete: () => over({ stage: 'done' }),
        error: (error: unknown) =>
          over({ stage: 'failed', detail: asIngestError(error, 'KCR_INTERNAL', 'not ours').code }),
      }),
      finalize(() => {
        if (!isOver) over({ stage: 'dropped' });
      }),
    );
  });
}

const config = checkConfig(JSON.parse(readFileSync(process.argv[2]!, 'utf8')));
const ports = aroundPorts(await openPorts(config), telling);
process.on('SIGTERM', () => ports.source.drain());
pipelineOf(ports, config, {
  owner: `worker-${process.pid}`,
  onEvent: (event) => {
    if (event.kind === 'assigned' || event.kind === 'lost')
      tell({ what: event.kind, partition: event.assignment.partition });
  },
}).subscribe({
  next: (outcome) => {
    const {
      kind,
      assignment: { partition },
    } = outcome;
    tell({
      what: kind,
      partition,
      detail: kind === 'halted' ? outcome.error.message : `${outcome.afterOffset + 1}-${outcome.lastOffset}`,
    });
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
