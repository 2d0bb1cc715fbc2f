/**
 * An insert that waits for others in the simulated server's memory. Imports: errors, model, ports, rxjs.
 */
import { map, type Observable } from 'rxjs';
import { IngestError } from '../errors.js';
import { bytesOf } from '../model/batch.js';
import type { InsertBatch, InsertResult } from '../ports.js';
import type { PortName } from './faults.js';
import type { SimulatedProcess } from './process.js';
import { unknownRefusal } from './refusal.js';
import { unreachable, type SinkSurroundings } from './sink-world.js';
import type { Row } from './table.js';

/**
 * Waits in the server's queue. Refused with others, it is told of a record that may be nobody's fault, as by the
 * server.
 */
export function queued(
  process: SimulatedProcess,
  world: SinkSurroundings,
  batch: InsertBatch,
  sent: readonly Row[],
  token: string,
  { port, what }: { readonly port: PortName; readonly what: () => string },
): Observable<InsertResult> {
  const {
    assignment: { topic, partition },
    records,
  } = batch;
  const bytes = bytesOf(records);
  return process
    .call<{ readonly refusedRow: number | undefined }>({
      port,
      partition,
      token,
      what: () => `${what()} with others`,
      effect: () => ({ refusedRow: undefined }),
      queue: (killed, done) => {
        if (world.isTableDown()) return done({ error: unreachable() });
        if (world.isTableRefusing()) return done({ error: unknownRefusal(topic, partition) });
        world.watch.blocks(token, sent.length, Infinity);
        world.watch.landing(token, batch, world.table.now().id);
        const noted: typeof done = (outcome) => {
          if (!('error' in outcome) && outcome.value.refusedRow === undefined) world.watch.took(token);
          done(outcome);
        };
        world.queue.push({
          batch,
          token,
          killed,
          done: noted,
          landed: () => world.watch.landed(token, batch),
          rows: sent,
        });
      },
    })
    .pipe(
      map(({ refusedRow }) => {
        if (refusedRow === undefined) return { rows: sent.length, bytes };
        const offset = sent.at(refusedRow - 1)?.offset ?? sent.at(0)?.offset;
        throw new IngestError('KCR_POISON', 'a row of those that were written together is refused', {
          topic,
          partition,
          offset,
          serverCode: 469,
        });
      }),
    );
}
