// The command `npm run fuzz`. Reads the arguments, prints; what is run stands in the files beside it.
//
//   --seconds N            for how long in all, shared by the kinds (default 60)
//   --cases N              so many cases of each kind instead
//   --seed S               decides every case (default 1)
//   --only a,b             of values, neighbourhoods, batches, answers
//   --case N               one case alone
//   --control              a product that is broken on purpose: violations are to be found
//   --json                 nothing on stdout but the last line
//
// Violations go to stderr; those of open-findings.ts are only counted, unless one case is run alone. The last line of stdout is one line of JSON. Ends with 1 when there was a violation.
import { parseArgs } from 'node:util';
import { startStack, type Stack } from '../../test/stack/stack.js';
import { kindNames, signatureOf, type KindName } from './kind.js';
import { isOpen } from './open-findings.js';
import type { Found } from './run-cases.js';
import { watchKind } from './watch.js';

/** Of violations that look alike only so many are printed; all are counted. */
const PRINTED_ALIKE = 3;
const MOST_PRINTED_BYTES = 6_000;

const { values } = parseArgs({
  options: {
    seconds: { type: 'string' },
    cases: { type: 'string' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string', default: kindNames.join(',') },
    case: { type: 'string' },
    control: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});

function whole(name: string, text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 0) return value;
  console.error(`Expected --${name} to be a whole number, got ${text}`);
  process.exit(2);
}

function kindsOf(text: string): readonly KindName[] {
  const wanted = text.split(',');
  const unknown = wanted.find((name) => !kindNames.some((kind) => kind === name));
  if (unknown === undefined) return kindNames.filter((kind) => wanted.includes(kind));
  console.error(`Expected --only to name some of ${kindNames.join(', ')}, got ${unknown}`);
  process.exit(2);
}

const seed = whole('seed', values.seed);
const kinds = kindsOf(values.only);
const from = values.case === undefined ? 0 : whole('case', values.case);
const cases = values.case !== undefined ? 1 : values.cases === undefined ? Infinity : whole('cases', values.cases);
const seconds = whole('seconds', values.seconds ?? '60');
const runMs = cases === Infinity ? (seconds * 1000) / kinds.length : Infinity;

const alike = new Map<string, number>();
let violations = 0;
/** Found, and known: see open-findings.ts. */
let open = 0;

function tell(kind: KindName, found: Found): void {
  if (!values.control && values.case === undefined && isOpen(kind, found)) {
    open += 1;
    return;
  }
  violations += 1;
  const signature = `${kind} ${signatureOf(found)}`;
  const count = (alike.get(signature) ?? 0) + 1;
  alike.set(signature, count);
  if (count > PRINTED_ALIKE) return;
  const input = found.input.length > MOST_PRINTED_BYTES ? `${found.input.slice(0, MOST_PRINTED_BYTES)}…` : found.input;
  console.error(`violation ${kind} seed ${seed} case ${found.caseNumber}: ${found.what}`);
  if (input !== '') console.error(`  input ${input}`);
  console.error(
    `  replay npm run fuzz -- --only ${kind} --seed ${seed} --case ${found.caseNumber}${values.control ? ' --control' : ''}`,
  );
}

function progress(text: string): void {
  if (process.stdout.isTTY && !values.json) process.stdout.write(`\r\u001b[K${text}`);
}

const begunMs = performance.now();
let stack: Stack | undefined;
const done: Partial<Record<KindName, number>> = {};
let maxRssBytes = 0;
try {
  if (kinds.includes('neighbourhoods')) stack = await startStack({ kafka: false, keeper: false });
  for (const kind of kinds) {
    const options = { seed, control: values.control, clickhouseUrl: stack?.clickhouseUrl };
    const result = await watchKind(
      kind,
      options,
      { from, to: from + cases, runMs },
      (found) => tell(kind, found),
      (count) => progress(`${kind} ${count}`),
    );
    done[kind] = result.cases;
    maxRssBytes = Math.max(maxRssBytes, result.maxRssBytes);
  }
} finally {
  progress('');
  await stack?.stop();
}
for (const [signature, count] of alike) if (count > PRINTED_ALIKE) console.error(`${count} like: ${signature}`);
const tookSeconds = Math.round((performance.now() - begunMs) / 100) / 10;
console.log(
  JSON.stringify({
    seed,
    seconds: tookSeconds,
    ...done,
    violations,
    open,
    maxRssMb: Math.round(maxRssBytes / 1024 / 1024),
  }),
);
process.exitCode = violations > 0 ? 1 : 0;
