// One value a case: what the grammar allows, or what comes close to it.
import type { Random } from '../random.js';
import { Grammar, deep } from './grammar.js';
import { mutated } from './mutate.js';

/** Shapes that were once taken for one object although they are not, or the other way round. */
const known = [
  '{"a":[}',
  '{]}',
  '{"n":1,"s":[1}',
  '{"n":1,"s":[\\"x"]}',
  '{"a":[{],"id":1},{"id":666,"_offset":424242},{"a":[}],"id":2}',
  '{"a":"\\u12"}',
  '{"a":"b"}{"a":"b"}',
  '{"a":1}\n{"a":2}',
  '{"a":1},',
  '[{"a":1}]',
  '',
  ' ',
  'null',
  '"{}"',
  '7',
  '\ufeff{"a":1}',
  '{"a":1}\u0000',
  "{'a':1}",
  '{"a":1,}',
  '{,}',
  '{"a"}',
  '{"a":}',
  '{a:1}',
  '{"a":1 "b":2}',
  '{"a":"\n"}',
  '{"a":"\\',
  '{"a":tru}',
  '{"a":nan}',
  '{"a":-}',
  '{"a":00}',
  '{"_offset":1}',
  '{"\\u005foffset":1}',
  '{"_OFFSET":1}',
  '{"x":{"_offset":1}}',
  '{}',
  ' {} ',
  '{"a":{}}',
  '{"a":[]}',
  '{"a":[[[[1]]]]}',
];

/** Window and block sizes that a scanner over memory of a fixed size may have. */
const sizes = [
  15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 191, 192, 193, 255, 256, 1023, 1024, 4095, 4096, 16_384, 65_535, 65_536,
  65_537, 131_072, 262_144, 1_048_576,
];
const LARGE_BYTES = 20_000;
const rareShare = 0.004;

export function valueOf(random: Random): Buffer {
  const shape = random.int(100);
  if (shape < 6) return Buffer.from(random.pick(known));
  if (shape < 8)
    return Buffer.from(deep(random, random.chance(0.9) ? random.between(1, 300) : random.between(300, 3000)));
  if (shape < 10) return soup(random);
  if (random.chance(rareShare * 4)) return sized(random);
  const whole = Buffer.from(grammatical(random));
  if (shape < 35) return whole;
  const other = shape % 2 === 0 ? Buffer.from(random.pick(known)) : whole;
  let bytes: Buffer = whole;
  for (let left = 1 + random.small(2); left > 0; left--) bytes = mutated(random, bytes, other);
  return bytes;
}

function grammatical(random: Random): string {
  const grammar = new Grammar(random, random.pick([2, 4, 8, 24]));
  const before = random.chance(0.1) ? random.pick([' ', '\n', '\t', '\r\n']) : '';
  const after = random.chance(0.1) ? random.pick([' ', '\n', '\t', '\r\n', '\u000b', '\0']) : '';
  return `${before}${grammar.object(random.between(1, 5))}${after}`;
}

/** Just as long as a window, a block or a vector is, or one byte more or less. */
function sized(random: Random): Buffer {
  const size = random.pick(sizes);
  if (size > LARGE_BYTES && !random.chance(0.1)) return sized(random);
  const [head, tail] = random.pick([
    ['{"a":"', '"}'],
    ['{"a":"', '\\"}"}'],
    ['{"n":1,"a":"', '"'],
    ['{"a":[1', ']}'],
    ['{"a":{"b":"', '"}}'],
    ['{', '}'],
    ['{"a":"x","b":', '"\\u00"}'],
  ] as const);
  const filler = random.pick(['x', ' ', 'é', '\\\\', '\\n', ',1']);
  const room = Math.max(0, size - Buffer.byteLength(head) - Buffer.byteLength(tail));
  const middle = Buffer.alloc(room, filler);
  const whole = Buffer.concat([Buffer.from(head), middle, Buffer.from(tail)]);
  return random.chance(0.5) ? whole : mutated(random, whole, whole);
}

/** Tokens in no order. */
function soup(random: Random): Buffer {
  const tokens = [
    '{',
    '}',
    '[',
    ']',
    ',',
    ':',
    '"a"',
    '"',
    '1',
    'true',
    'null',
    '\\',
    ' ',
    '"_offset"',
    '-',
    'e',
    '.',
    '\n',
  ];
  return Buffer.from(`{${Array.from({ length: random.small(14) }, () => random.pick(tokens)).join('')}`);
}
