// A worker of the chaos run: `node --import tsx verification/chaos/worker.ts <config.json> [control]`. Tells its effects before
// each is made and once it is answered, and dies on demand between two of them: a line of its standard input is an
// `Aim`. SIGTERM drains.
import { readFileSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import {
  concatMap,
  defer,
  finalize,
  from,
  of,
  tap,
  type MonoTypeOperatorFunction,
  type Observable,
  type ObservableInput,
} from 'rxjs';
import { transformRows, type Transform } from '../../operators/between/transform-rows.js';
import { checkConfig, type CheckedConfig } from '../../src/config/config.js';
import { asIngestError, errorCodes } from '../../src/errors.js';
import type { IngestEvent } from '../../src/events.js';
import { openPorts, pipelineOf, type OpenPorts } from '../../src/pipeline/ingest.js';
import type { PreparedInsert, InsertBatch } from '../../src/ports.js';
import type { InsertableBatch } from '../../src/stages.js';
import { aroundPorts, type PortCall } from '../../test/support/around-ports.js';
import { isThrottled, type Aim, type Control, type Told, type Window } from './told.js';
import { policyOf, rowsOf, rowsOfTombstonesToo } from './tombstones.js';

const tell = (told: Omit<Told, 'atMs'>): void =>
  void writeSync(1, `${JSON.stringify({ atMs: Date.now(), ...told })}\n`);

let aim: (Aim & { readonly calls: number }) | undefined;

/** Is this the call to die at? Counts the chances down. */
function isAimedAt(window: Window): boolean {
  if (aim?.window !== window) return false;
  aim = { ...aim, calls: aim.calls - 1 };
  return aim.calls <= 0;
}

function die(window: Window, { what: _, ...call }: PortCall): void {
  tell({ what: 'window', window, ...call });
  process.kill(process.pid, 'SIGKILL');
}

/** The call, told when it is made (which is when it is subscribed to), and when it ends. */
function telling<T>(call: PortCall, make: () => ObservableInput<T>): Observable<T> {
  return defer(() => {
    if (call.what === 'insert' && isAimedAt('W1')) die('W1', call);
    tell({ ...call, stage: 'begins' });
    const beganMs = performance.now();
    let isOver = false;
    const over = (end: Partial<Told>): void => {
      isOver = true;
      tell({ ...call, tookMs: Math.round(performance.now() - beganMs), ...end });
    };
    if (call.what === 'insert' && isAimedAt('W2')) {
      setTimeout(() => {
        // Answered already: the next one, then.
        if (isOver) aim = { ...aim!, calls: 1, afterMs: Math.floor(aim!.afterMs / 2) };
        else die('W2', call);
      }, aim!.afterMs);
    }
    return from(make()).pipe(
      tap({
        complete: () => {
          over({ stage: 'done' });
          if (call.what === 'insert' && isAimedAt('W3')) die('W3', call);
          if (call.what === 'write' && call.settles !== undefined && isAimedAt('W4')) die('W4', call);
        },
        error: (error: unknown) =>
          over({ stage: 'failed', detail: asIngestError(error, 'KCR_INTERNAL', 'not ours').code }),
      }),
      finalize(() => {
        if (!isOver) over({ stage: 'dropped' });
      }),
    );
  });
}

function report(event: IngestEvent): void {
  if (event.kind === 'kafka') {
    if (event.level !== 'info' || isThrottled(event.message))
      tell({ what: 'kafka', detail: `${event.level}: ${event.message}` });
    return;
  }
  // The faults alter no table.
  if (event.kind === 'tableChanged') return;
  const { topic, partition } = event.assignment;
  const at = { topic, partition };
  switch (event.kind) {
    case 'assigned':
    case 'lost':
    case 'released':
      return tell({ what: event.kind, ...at });
    case 'claimed':
      return tell({
        what: 'claimed',
        ...at,
        detail: `${event.inDoubt} in doubt`,
        ...(event.settled === undefined ? {} : { settled: event.settled }),
      });
    case 'resumed':
      return tell({ what: 'resumed', ...at, detail: `at ${event.resume}, committed ${event.committed}` });
    case 'skipped':
      return tell({ what: 'skipped', ...at, detail: `${event.first}-${event.last}` });
    case 'verified':
      return tell({ what: 'verified', ...at, detail: `${event.first}-${event.last}`, missing: event.missing });
    case 'gap':
      return tell({ what: 'gap', ...at, detail: `expected ${event.expected}, found ${event.found}` });
    case 'retry':
      return tell({ what: 'retry', ...at, detail: `${event.call}, ${event.error.code}` });
    case 'fenced':
    case 'commitFailed':
      return tell({ what: event.kind, ...at, detail: event.error.message });
    case 'tombstones':
      return tell({ what: 'tombstones', ...at, detail: `${event.first}-${event.last}`, filtered: event.records });
    case 'restarted':
      return tell({ what: 'restarted', ...at, detail: event.reason });
    default:
      return;
  }
}

/** With one guard taken out. */
function sabotaged(ports: OpenPorts, control: Control | undefined): OpenPorts {
  switch (control) {
    case 'tokens':
      // A replay by another process has another token: I2.
      return withFreeze(ports, (prepare, batch) =>
        prepare(batch.token === undefined ? batch : { ...batch, token: `${batch.token}:${process.pid}` }),
      );
    case 'read-back':
      // What the server says it has is believed: I11.
      return withFreeze(ports, (prepare, batch) =>
        Object.defineProperty(prepare(batch), 'readBackWhenInDoubt', { value: false }),
      );
    default:
      return ports;
  }
}

type Freeze = OpenPorts['sink']['prepare'];

function withFreeze(ports: OpenPorts, made: (prepare: Freeze, batch: InsertBatch) => PreparedInsert): OpenPorts {
  const { sink } = ports;
  const prepare: Freeze = (batch) => made((given) => sink.prepare(given), batch);
  return { ...ports, sink: { describe: (topic) => sink.describe(topic), prepare, close: () => sink.close() } };
}

function configOf(file: string, control: Control | undefined): CheckedConfig {
  const config = checkConfig(JSON.parse(readFileSync(file, 'utf8')));
  return control === 'at-least-once' ? { ...config, delivery: control } : config;
}

/** As `ingest` makes it of the transform of a route, a batch at a time: what was filtered is told with its range. */
function transforming<B extends InsertableBatch>(transform: Transform): MonoTypeOperatorFunction<B> {
  return concatMap((batch) => {
    const {
      assignment: { topic, partition },
      afterOffset,
      lastOffset,
    } = batch;
    return of(batch).pipe(
      transformRows<B>(transform, {
        onEvent: (event) => {
          if (event.kind === 'filtered')
            tell({
              what: 'filtered',
              topic,
              partition,
              detail: `${afterOffset + 1}-${lastOffset}`,
              filtered: event.records,
            });
        },
      }),
    );
  });
}

function end(thrown: unknown): never {
  const error = asIngestError(thrown, 'KCR_INTERNAL', 'not ours');
  tell({ what: 'ended', stage: 'failed', detail: `${error.code}: ${error.message}` });
  process.exit(errorCodes[error.code].exitCode);
}

const control = process.argv[3] as Control | undefined;
const config = configOf(process.argv[2]!, control);
const ports = aroundPorts(sabotaged(await openPorts(config, { onEvent: report }).catch(end), control), telling);
process.on('SIGTERM', () => ports.source.drain());
createInterface({ input: process.stdin }).on(
  'line',
  (line) => (aim = line === '' ? undefined : (JSON.parse(line) as Aim)),
);
tell({ what: 'started' });
const transform = control === 'tombstones' ? rowsOfTombstonesToo : rowsOf;
const transformOf = <B extends InsertableBatch>(topic: string) =>
  control === 'tombstones' || policyOf(topic) === 'dropped' ? transforming<B>(transform) : undefined;
pipelineOf(ports, config, { owner: `worker-${process.pid}`, transform: transformOf, onEvent: report }).subscribe({
  next: (outcome) => {
    const { topic, partition } = outcome.assignment;
    if (outcome.kind === 'halted') return tell({ what: 'halted', topic, partition, detail: outcome.error.message });
    const { afterOffset, lastOffset, replay } = outcome;
    tell({
      what: 'delivered',
      topic,
      partition,
      detail: `${afterOffset + 1}-${lastOffset}`,
      ...(replay ? { replay } : {}),
    });
  },
  error: end,
  complete: () => {
    void ports.close().then(() => {
      tell({ what: 'ended', stage: 'done' });
      process.exit(0);
    });
  },
});
