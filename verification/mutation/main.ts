// `npm run mutate`: lines of a room are changed one by one, and its tests should notice. Not in `npm test`: a room takes
// from minutes to hours of two cores.
//
//   --room model|operators|ledger|insert|kafka
//   --files a.ts,b.ts     of the room, these only; also with a range of lines: a.ts:10-40
//   --sample N --seed S   one mutant in N, the same ones for the same S
//   --concurrency N       default 2
//   --json                the last line as JSON
//
// Exit code 1 when the score is below what the room must have. Survivors are printed as equivalents.ts takes them.
import { mkdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Stryker } from '@stryker-mutator/core';
import { equivalents } from './equivalents.js';
import { isRoom, rooms } from './rooms.js';
import { scoreOf, type MutationReport } from './score.js';

const { values } = parseArgs({
  options: {
    room: { type: 'string', default: '' },
    files: { type: 'string' },
    sample: { type: 'string', default: '1' },
    seed: { type: 'string', default: '1' },
    concurrency: { type: 'string', default: '2' },
    json: { type: 'boolean', default: false },
  },
});

const { room, sample, seed } = values;
if (!isRoom(room)) throw new Error(`Expected --room to be one of ${Object.keys(rooms).join(', ')}, got "${room}"`);
for (const name of ['sample', 'concurrency'] as const)
  if (!/^[1-9]\d*$/.test(values[name]))
    throw new Error(`Expected --${name} to be a positive integer, got "${values[name]}"`);

const root = fileURLToPath(new URL('../../', import.meta.url));
process.chdir(root);
const reportFile = `.cache/mutation/${room}.json`;
mkdirSync('.cache/mutation', { recursive: true });
Object.assign(process.env, { MUTATION_ROOM: room, MUTATION_ONE_IN: sample, MUTATION_SEED: seed });

await new Stryker({
  mutate: values.files?.split(',') ?? [...rooms[room].mutate],
  testRunner: 'vitest',
  vitest: { configFile: 'vitest.mutation.config.ts', related: false },
  plugins: ['@stryker-mutator/vitest-runner', `${root}verification/mutation/draw.mjs`],
  checkers: sample === '1' ? [] : ['draw'],
  coverageAnalysis: 'perTest',
  concurrency: Number(values.concurrency),
  reporters: values.json ? ['json'] : ['json', 'progress-append-only'],
  jsonReporter: { fileName: reportFile },
  tempDirName: '.cache/mutation/sandbox',
  ignorePatterns: ['dist', '.cache', 'bench', 'test/stack/lib'],
  // Many tests wait for timers of their own.
  timeoutMS: 20_000,
  disableTypeChecks: false,
  allowConsoleColors: false,
  logLevel: 'warn' as never,
}).runMutationTest();

const { killed, equivalent, survivors, percent } = scoreOf(
  JSON.parse(readFileSync(reportFile, 'utf8')) as MutationReport,
  equivalents,
);
if (!values.json) for (const survivor of survivors) console.log(JSON.stringify(survivor));
const rounded = percent === undefined ? 'none' : percent.toFixed(1);
const result = { room, sample, seed, killed, survived: survivors.length, equivalent, score: rounded };
console.log(
  values.json
    ? JSON.stringify(result)
    : Object.entries(result)
        .map((pair) => pair.join(' '))
        .join(', '),
);
process.exitCode = percent !== undefined && percent >= rooms[room].leastScore ? 0 : 1;
