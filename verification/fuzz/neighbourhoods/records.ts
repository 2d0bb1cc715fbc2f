// A few records that lie beside one another: good ones, broken ones, and such as only the server can judge.
import type { Random } from '../random.js';
import { deep } from '../values/grammar.js';
import { mutated } from '../values/mutate.js';
import type { FuzzTable } from './tables.js';

export interface FuzzRecord {
  readonly offset: number;
  readonly value: Buffer;
  readonly key: Buffer | null;
  readonly timestampMs: number;
  readonly headers: readonly (readonly [string, Buffer | null])[];
  /** The value with another number for `n`: records of one template are judged alike. Undefined: the value is like no other. */
  readonly template: string | undefined;
  /** The value with the number that probes have; without a template the value itself. */
  readonly probe: Buffer;
  /** What `n` is written as in the value; only of a template. */
  readonly n: number;
}

/** Stands where the number is. */
const N = '@n@';
/** The number that a template is probed with. */
export const PROBE_N = 4_200_042;
/** Offsets of one case, so that those of different cases never meet. */
export const OFFSETS_A_CASE = 1000;
export const MOST_RECORDS = 9;

const broken = [
  `{"n":${N},"v":[}`,
  `{]}`,
  `{"n":${N},"v":[${N}}`,
  `{"n":${N},"v":[\\"x"]}`,
  `{"v":[{],"n":1},{"n":666,"v":"F","_topic":"other","_partition":9,"_offset":424242},{"v":[}],"n":2}`,
  `{"n":${N},"v":"a`,
  `{"n":${N}}{"n":${N}}`,
  `{"n":${N}}\n{"n":${N}}`,
  `[{"n":${N}}]`,
  '',
  ' ',
  '\n',
  `{"n":${N},}`,
  `{"n":${N},"v":'x'}`,
  `{"n":${N},"v":"a\nb"}`,
  `{"n":${N},"v":"a\tb"}`,
  `{"n":${N} "v":1}`,
  `{"n":${N},"v":{]}`,
  '}',
  '{',
  ']',
  '[',
  `{"n":${N},"v":NaN}`,
  `{"n":${N},"v":nul}`,
  `{"n":0${N}}`,
  `{"n":${N}.}`,
  `{"n":+${N}}`,
  `{"n":${N},"v":"\\x41"}`,
  `{"n":${N},"v":"\\u12"}`,
  `{"n":${N},"x":[}]}`,
  `{"n":${N},"x":{"y":]}}`,
  `{"n":${N},"x":"\\"}`,
  `{"n":${N},"v":[1,]}`,
  `{"n":${N}},`,
  `{"n":${N}};`,
  `\ufeff{"n":${N}}`,
  `{"n":${N}}\u0000`,
  `{"n":${N},"v":[{]}]}`,
  `null`,
  `${N}`,
  `"x"`,
  `{"n":${N},"v":(1)}`,
  `{n:${N}}`,
  `{"n":${N}/**/}`,
  `{"n":${N},"v":1}}`,
  `{{"n":${N}}}`,
  `{"n":${N},"v":"a"\\}`,
];

export function recordsOf(random: Random, table: FuzzTable, caseNumber: number): FuzzRecord[] {
  let offset = caseNumber * OFFSETS_A_CASE + random.small(20);
  const badness = random.pick([0.15, 0.5, 0.85]);
  return Array.from({ length: 1 + random.int(MOST_RECORDS) }, (_, index) => {
    const n = 1 + ((caseNumber * 31 + index * 7919) % 4_000_000);
    const made = random.chance(badness) ? badValue(random, table, n) : goodValue(random, table, n);
    const key = random.chance(0.5) ? null : Buffer.from(random.pick(['k', '', 'é', '"', '\u0000']));
    const headers = random.chance(0.6)
      ? []
      : [[random.pick(['h', 'a"b']), random.chance(0.3) ? null : Buffer.from('v')] as const];
    const record = { ...made, offset, key, headers, timestampMs: 1_790_000_000_000 + random.int(10 ** 6), n };
    offset += 1 + (random.chance(0.2) ? random.small(3) : 0);
    return record;
  });
}

type Made = Pick<FuzzRecord, 'template' | 'value' | 'probe'>;

function made(template: string, n: number): Made {
  const valueFor = (number: number): Buffer => bytesOf(template.replaceAll(N, String(number)));
  return { template, value: valueFor(n), probe: valueFor(PROBE_N) };
}

/** The one letter that is no text of JSON stands for a byte that is no UTF-8. */
function bytesOf(text: string): Buffer {
  const parts = text.split('\x80').map((part) => Buffer.from(part));
  return Buffer.concat(parts.flatMap((part, index) => (index === 0 ? [part] : [Buffer.from([0x80]), part])));
}

function goodValue(random: Random, table: FuzzTable, n: number): Made {
  const members = [`"n":${N}`, table.member(random.pick(table.good))];
  if (random.chance(0.2))
    members.push(random.pick(['"x":1', '"unknown":{"a":[{}]}', '"x":"}{]["', '"_other":null', '"N ":0']));
  if (random.chance(0.3)) members.reverse();
  return made(spaced(random, members), n);
}

function spaced(random: Random, members: readonly string[]): string {
  if (random.chance(0.8)) return `{${members.join(',')}}`;
  return random.pick([`{ ${members.join(' , ')} }`, `\n{${members.join(',\n')}}\n`, ` {${members.join(',')}\t}`]);
}

function badValue(random: Random, table: FuzzTable, n: number): Made {
  const shape = random.int(100);
  if (shape < 30) return made(random.pick(broken), n);
  if (shape < 60) return made(spaced(random, [`"n":${N}`, table.member(random.pick(table.near))]), n);
  if (shape < 70) return made(forged(random, table), n);
  if (shape < 73) return made(deep(random, random.pick([50, 300, 900, 1100])).replace('"n":1', `"n":${N}`), n);
  const base = random.chance(0.7)
    ? goodValue(random, table, n)
    : made(spaced(random, [`"n":${N}`, table.member(random.pick(table.near))]), n);
  const value = mutated(random, base.value, bytesOf(random.pick(broken).replaceAll(N, '5')));
  return { template: undefined, value, probe: value };
}

/** Fields of the names that provenance columns have, plain and in disguise. */
function forged(random: Random, table: FuzzTable): string {
  const name = random.pick(['_topic', '_partition', '_offset', '_timestamp', '_key', '_headers']);
  const disguised = random.pick([
    name,
    name,
    name.toUpperCase(),
    name.replace('_', '\\u005f'),
    `_\\u00${name.charCodeAt(1).toString(16)}${name.slice(2)}`,
    `${name.slice(0, 2)}${name.slice(2).toUpperCase()}`,
    `${name}s`,
  ]);
  const value = random.pick(['777', 'null', '"other"', '{}', '[]', '-1', '0', '"0"']);
  const members = [`"n":${N}`, table.member(random.pick(table.good))];
  members.splice(random.int(3), 0, `"${disguised}":${value}`);
  if (random.chance(0.2)) return `{${members[0]},"x":{"${name}":${value}},${members[1]}}`;
  return spaced(random, members);
}
