// Record batches: what the product reads of a piece of a log against what the oracle reads of it.
import type { Kind, KindOptions } from '../kind.js';
import { Random } from '../random.js';
import { compressionReady } from './compress.js';
import { logPlan, type LogPlan } from './generate.js';
import { damagedLog, type Damaged } from './mutate.js';
import { readLog, type OracleBatch, type OracleRecord } from './oracle.js';
import {
  readAsShipped,
  readForEver,
  readWithoutChecksum,
  type LogPiece,
  type LogSubject,
  type ReadLog,
} from './subject.js';

const limits = [1, 2_000, 100_000, 64 * 1024 * 1024] as const;
/** Memory that one bomb may take for as long as it is read. */
const MOST_BOMB_BYTES = 400 * 1024 * 1024;

export async function openBatches({ seed, control, loopsAtMarkers = false }: KindOptions): Promise<Kind> {
  await compressionReady();
  if (loopsAtMarkers) return batchesOf(seed, readForEver);
  return batchesOf(seed, control ? readWithoutChecksum : readAsShipped);
}

export function batchesOf(seed: number, subject: LogSubject): Kind {
  return {
    concurrency: 1,
    run: async (caseNumber) => {
      const random = new Random(seed, 'batches', caseNumber);
      const plan = logPlan(random);
      const damaged = damagedLog(random, plan);
      const piece: LogPiece = {
        data: damaged.data,
        fromOffset: plan.fromOffset,
        aborted: plan.aborted,
        limitBytes: random.pick(limits),
      };
      const read = damaged.isBomb ? undefined : await subject(piece);
      const what =
        read === undefined
          ? await bombFault(piece, subject)
          : (faultOf(read, oracleOf(piece, damaged), piece.fromOffset) ?? skipFault(read, plan, damaged));
      return what === undefined ? undefined : { what, input: inputOf(piece) };
    },
  };
}

function oracleOf({ data, fromOffset, aborted }: LogPiece, { isPackingDamaged }: Damaged): readonly OracleBatch[] {
  return readLog({ data, fromOffset, aborted, isPackingDamaged });
}

async function bombFault(piece: LogPiece, subject: LogSubject): Promise<string | undefined> {
  const before = process.memoryUsage.rss();
  const { error } = await subject(piece);
  const grown = process.memoryUsage.rss() - before;
  if (grown > MOST_BOMB_BYTES)
    return `a batch of ${piece.data.length} bytes took ${Math.round(grown / 1024 / 1024)} MB of memory`;
  return error !== undefined && !error.isOurs ? `an exception that is not ours: ${error.text}` : undefined;
}

/** What is wrong with what was read; undefined: nothing. */
function faultOf(read: ReadLog, batches: readonly OracleBatch[], fromOffset: number): string | undefined {
  const expected: OracleRecord[] = [];
  let lastOffset: number | undefined;
  let refusable: string | undefined;
  for (const batch of batches) {
    if (batch.kind === 'records') {
      expected.push(...batch.records);
      if (batch.lastOffset >= fromOffset) lastOffset = batch.lastOffset;
      if (batch.mayBeRefused) refusable ??= 'may be';
    } else if (batch.kind === 'invalid') {
      if (batch.mayBePassedOver !== true && read.error === undefined) return `a batch is taken although ${batch.why}`;
      refusable ??= batch.why;
    } else if (batch.mayBeRefused) {
      refusable ??= 'may be';
    }
  }
  if (read.error !== undefined && !read.error.isOurs) return `an exception that is not ours: ${read.error.text}`;
  const wrong = firstDifference(read.records, expected);
  if (wrong !== undefined) return wrong;
  if (read.error !== undefined)
    return refusable === undefined ? `sound batches are refused: ${read.error.text}` : undefined;
  if (batches.some((batch) => batch.kind === 'invalid' && batch.mayBePassedOver !== true)) return undefined;
  if (read.records.length < expected.length) return `${expected.length - read.records.length} records are missing`;
  if (read.lastOffset !== lastOffset) return `it says it has read up to ${read.lastOffset}, which is ${lastOffset}`;
  const bytes = expected.reduce((sum, { key, value }) => sum + (key?.length ?? 0) + (value?.length ?? 0), 0);
  return read.bytes === bytes ? undefined : `it counts ${read.bytes} bytes, which are ${bytes}`;
}

/** What is passed over in place of one damaged batch may not reach into its neighbours: their records would be lost. */
function skipFault({ skippable }: ReadLog, { batches }: LogPlan, { target }: Damaged): string | undefined {
  if (skippable === undefined || target === undefined) return undefined;
  const next = batches[target + 1]?.fields.base;
  const before = batches[target - 1];
  const reachesOn = next !== undefined && BigInt(skippable.last) >= next;
  const reachesBack =
    before !== undefined && BigInt(skippable.first) <= before.fields.base + BigInt(before.fields.lastDelta);
  return reachesOn || reachesBack ? 'to pass over a damaged batch passes over sound records of others' : undefined;
}

function firstDifference(read: readonly OracleRecord[], expected: readonly OracleRecord[]): string | undefined {
  for (const [index, record] of read.entries()) {
    const should = expected[index];
    if (should === undefined) return 'a record is delivered that nobody sent';
    if (record.offset !== should.offset) return `a record has offset ${record.offset} instead of ${should.offset}`;
    if (should.timestampMs !== undefined && record.timestampMs !== should.timestampMs)
      return `a record has the time ${record.timestampMs} instead of ${should.timestampMs}`;
    if (!isSame(record.key, should.key) || !isSame(record.value, should.value))
      return 'a record has another key or value';
    const isHeadersSame =
      record.headers.length === should.headers.length &&
      record.headers.every(
        ([name, value], i) => name === should.headers[i]![0] && isSame(value, should.headers[i]![1]),
      );
    if (!isHeadersSame) return 'a record has other headers';
  }
  return undefined;
}

function isSame(one: Buffer | null, other: Buffer | null): boolean {
  return one === null || other === null ? one === other : one.equals(other);
}

function inputOf({ data, fromOffset, aborted, limitBytes }: LogPiece): string {
  const transactions = aborted.map(({ producerId, firstOffset }) => `${producerId}@${firstOffset}`).join(' ');
  return `fromOffset ${fromOffset}, limitBytes ${limitBytes}, aborted [${transactions}], base64 ${data.toString('base64')}`;
}
