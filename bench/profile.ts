/**
 * `npm run bench:profile`: where our process spends its time while it ingests the 244-byte event exactly once: V8's own
 * profile (`--cpu-prof`), its samples added up by room. The last line of the output is one JSON object.
 */
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { startStack, type Stack } from '../test/stack/stack.js';
import { createTable } from '../test/support/event-producer.js';
import type { Parameters, Used } from './contender.js';
import { writeSection } from './sections.js';
import { produceWorkload, workloads } from './workloads.js';

const { values: options } = parseArgs({
  options: { rows: { type: 'string', default: '3000000' }, json: { type: 'boolean' }, write: { type: 'boolean' } },
});
const rows = Number(options.rows);

interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string };
  }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

/** The first that fits counts. */
const rooms: readonly (readonly [what: string, fits: (url: string, name: string) => boolean])[] = [
  ['waiting', (_, name) => name === '(idle)'],
  ['garbage collector', (_, name) => name === '(garbage collector)'],
  ['is each value one JSON object', (url) => /insert\/check-batch\.js|\/kernel\/|^wasm:/.test(url)],
  ['rows: values copied, provenance spliced in', (url) => /insert\/(encode|body|json-text)\.js/.test(url)],
  [
    'record batches: where each record lies',
    (url) =>
      /kafka\/fetch\/(records|record-parser|reading|scan|unpack|codecs|aborted|crc32c)|packed-records\.js/.test(url),
  ],
  ['the rest of ours, and RxJS', (url) => /\/dist\/|\/rxjs\//.test(url)],
  ['kafkajs', (url) => url.includes('/kafkajs/')],
  ['other packages', (url) => url.includes('/node_modules/')],
  [
    'loading modules',
    (url, name) =>
      /internal\/modules|source_map|vm:|esm\/|cjs\//.test(url) ||
      ['wrapSafe', 'compileFunctionForCJSLoader', 'readFileUtf8'].includes(name),
  ],
  ['Node: sockets, HTTP, buffers', (url) => url.startsWith('node:')],
  ['system calls and the like', () => true],
];

function addUp(profile: CpuProfile): Map<string, number> {
  const roomOf = new Map(
    profile.nodes.map(({ id, callFrame: { url, functionName } }) => [
      id,
      rooms.find(([, fits]) => fits(url, functionName))![0],
    ]),
  );
  const microseconds = new Map<string, number>(rooms.map(([what]) => [what, 0]));
  profile.samples.forEach((id, i) => {
    const what = roomOf.get(id)!;
    microseconds.set(what, microseconds.get(what)! + profile.timeDeltas[i]!);
  });
  return microseconds;
}

async function profiled(
  { brokers, clickhouseUrl, keeperConnect }: Stack,
  topic: string,
): Promise<{ used: Used; profile: CpuProfile }> {
  const folder = mkdtempSync(join(tmpdir(), 'kafka-clickhouse-profile-'));
  try {
    const table = `profiled_${randomUUID().slice(0, 8)}`;
    await createTable(clickhouseUrl, table, workloads.event244.columns);
    const parameters: Parameters = {
      brokers,
      clickhouseUrl,
      keeperConnect,
      topic,
      table,
      group: `g_${topic}`,
      rows,
      batchRows: 100_000,
      maxWaitMs: 1000,
      maxPending: 2,
      endsByItself: true,
    };
    const contender = fileURLToPath(new URL('./contender.ts', import.meta.url));
    const child = spawn(
      process.execPath,
      [
        '--cpu-prof',
        '--cpu-prof-dir',
        folder,
        '--import',
        'tsx',
        contender,
        'exactly-once/keeper',
        JSON.stringify(parameters),
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    process.once('exit', () => child.kill('SIGKILL'));
    let printed = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (printed += text));
    await once(child, 'close');
    const used = JSON.parse(printed.trim().split('\n').at(-1) ?? '') as Used;
    // The loader's thread writes one of its own, which does next to nothing.
    const profiles = readdirSync(folder).map(
      (file) => JSON.parse(readFileSync(join(folder, file), 'utf8')) as CpuProfile,
    );
    const busiest = profiles.sort((a, b) => b.nodes.length - a.nodes.length)[0]!;
    return { used, profile: busiest };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const stack = await startStack();
try {
  const topic = `event244_${randomUUID().slice(0, 6)}`;
  await produceWorkload(stack, topic, { ...workloads.event244, rows, partitions: 4 });
  const { used, profile } = await profiled(stack, topic);
  const microseconds = addUp(profile);
  const busy = [...microseconds].filter(([what]) => what !== 'waiting' && what !== 'loading modules');
  // Every room has something to do; a path that fits nothing any more would say that it costs nothing.
  const idle = busy.filter(([, each]) => each === 0).map(([what]) => what);
  if (idle.length > 0) throw new Error(`nothing was counted for: ${idle.join('; ')}`);
  const total = busy.reduce((sum, [, each]) => sum + each, 0);
  const shares = busy.map(([what, each]) => ({ what, share: each / total })).sort((a, b) => b.share - a.share);
  const cpuSecondsPerMillionRows = used.cpuSeconds / (used.rows / 1e6);
  const table = shares.map(({ what, share }) => `| ${what} | ${(100 * share).toFixed(0)} % |`).join('\n');
  const markdown = `${rows} events of 244 bytes, 4 partitions, exactly once (keeper): ${cpuSecondsPerMillionRows.toFixed(2)} CPU seconds per million rows with the profiler on.\nShares of the main thread's time when it is not waiting:\n\n| what | share |\n| --- | --- |\n${table}\n`;
  if (options.json !== true) console.log(markdown);
  if (options.write === true) writeSection('npm run bench:profile', markdown);
  console.log(JSON.stringify({ rows: used.rows, cpuSecondsPerMillionRows, shares }));
} finally {
  await stack.stop();
}
