/**
 * What the check of values costs, in CPU seconds per million rows of 244 bytes: the one before it (braces and strings
 * only, taken from the history where there is one), the module, its twin, and each with the encoding of the rows behind
 * it. Rounds are interleaved. `npm run bench:check -- [--rows N] [--rounds N] [--before REVISION] [--json]`
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Command } from 'commander';
import { noProvenance, RowEncoder } from '../src/clickhouse/insert/encode.js';
import { checkByTwin, checkValues, reservedNames } from '../src/kernel/index.js';
import { cursorOver, PackedRecords, PartBuilder } from '../src/model/packed-records.js';
import { median, whole } from './machine.js';
import { event } from './workloads.js';

const BATCH_ROWS = 20_000;
const names = reservedNames(['_topic', '_partition', '_offset']);

type Check = (records: PackedRecords) => void;

/** As they come from Kafka: in one buffer, a few bytes of the record's own between two values. */
function records(): PackedRecords {
  const part = new PartBuilder(BATCH_ROWS, () => []);
  const parts: Buffer[] = [];
  const places: number[] = [];
  let at = 0;
  for (let id = 0; id < BATCH_ROWS; id++) {
    const value = Buffer.from(event(id, 'event244'));
    parts.push(Buffer.alloc(9), value);
    places.push(at + 9, value.length);
    at += 9 + value.length;
  }
  part.open(Buffer.concat(parts));
  for (let id = 0; id < BATCH_ROWS; id++) part.add(id, 1_795_000_000_000, 0, -1, places[2 * id]!, places[2 * id + 1]!);
  return PackedRecords.of([part.build()]);
}

interface Before {
  readonly BackslashSearch: new () => object;
  readonly objectFault: (data: Uint8Array, start: number, end: number, search: object) => string | undefined;
}

/** Undefined where the history does not have it. */
async function checkBefore(revision: string): Promise<Check | undefined> {
  const directory = mkdtempSync(join(tmpdir(), 'kcr-check-'));
  try {
    const file = join(directory, 'json-object.ts');
    writeFileSync(
      file,
      execFileSync('git', ['show', `${revision}:src/clickhouse/json-object.ts`], {
        stdio: ['ignore', 'pipe', 'ignore'],
      }),
    );
    const { BackslashSearch, objectFault } = (await import(pathToFileURL(file).href)) as Before;
    return (batch) => {
      const search = new BackslashSearch();
      for (const cursor = cursorOver(batch); cursor.next();) {
        const { data, valueStart, valueLength } = cursor;
        if (objectFault(data, valueStart, valueStart + valueLength, search) !== undefined)
          throw new Error('an event was refused');
      }
    };
  } catch {
    return undefined;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function accepted(check: typeof checkValues): Check {
  return (batch) => {
    if (check(cursorOver(batch), names).fault !== undefined) throw new Error('an event was refused');
  };
}

const encoder = new RowEncoder({ ...noProvenance, topic: true, partition: true, offset: true }, 'orders', 3);
const piece = Buffer.alloc(256 * 1024);

function encode(batch: PackedRecords): void {
  const rows = encoder.rows(batch);
  while (!rows.isOver) rows.fill(piece);
}

function cpuSeconds(check: Check, batch: PackedRecords, batches: number): number {
  const before = process.cpuUsage();
  for (let times = 0; times < batches; times++) check(batch);
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

interface Options {
  readonly rows: number;
  readonly rounds: number;
  readonly before: string;
  readonly json?: true;
}

const options = new Command()
  .option('--rows <n>', 'rows of each measure', whole, 1_000_000)
  .option('--rounds <n>', 'rounds, of which the first does not count', whole, 6)
  .option('--before <revision>', 'where the check of braces and strings is taken from', '3c18217')
  .option('--json')
  .parse()
  .opts<Options>();

const before = await checkBefore(options.before);
const [byModule, byTwin] = [accepted(checkValues), accepted(checkByTwin)];
const withEncode =
  (check: Check): Check =>
  (batch) => {
    check(batch);
    encode(batch);
  };
const measures: Readonly<Record<string, Check>> = {
  ...(before === undefined ? {} : { 'braces and strings': before, 'braces and strings, encode': withEncode(before) }),
  module: byModule,
  'module, encode': withEncode(byModule),
  twin: byTwin,
  'twin, encode': withEncode(byTwin),
};
const batch = records();
const batches = Math.max(1, Math.round(options.rows / BATCH_ROWS));
const found = new Map<string, number[]>();
for (let round = 0; round <= options.rounds; round++) {
  for (const [name, check] of Object.entries(measures)) {
    const seconds = cpuSeconds(check, batch, round === 0 ? Math.min(batches, 5) : batches);
    if (round > 0) found.set(name, [...(found.get(name) ?? []), (seconds * 1e6) / (batches * BATCH_ROWS)]);
  }
}
const lines = [...found].map(([measure, seconds]) => ({
  measure,
  median: median(seconds),
  least: Math.min(...seconds),
  most: Math.max(...seconds),
}));
if (options.json)
  console.log(
    JSON.stringify({
      node: process.versions.node,
      rows: batches * BATCH_ROWS,
      rounds: options.rounds,
      cpuSecondsPerMillionRows: lines,
    }),
  );
else
  for (const { measure, median: middle, least, most } of lines)
    console.log(
      `${measure.padEnd(28)} ${middle.toFixed(3)} CPU s per million rows (${least.toFixed(3)}–${most.toFixed(3)})`,
    );
