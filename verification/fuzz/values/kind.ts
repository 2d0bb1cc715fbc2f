// Values: the product's check against JSON.parse, both ways, and its implementations against each other.
import type { Finding, Kind, KindOptions } from '../kind.js';
import { Random } from '../random.js';
import { escaped, shrinkBytes, shrinkList } from '../shrink.js';
import { valueOf } from './generate.js';
import { expected } from './oracle.js';
import { brokenChecks, valueChecks, type ValueCheck, type ValuePlace } from './subject.js';

/** The provenance columns of the table that the values are for. */
const filledNames = [
  [],
  ['_topic', '_partition', '_offset'],
  ['_offset'],
  ['_topic', '_partition', '_offset', '_timestamp', '_key', '_headers'],
] as const;
/** What lies between values in the memory they came in: a check that reads beyond a value's end is misled by it. */
const between = [
  '',
  '"',
  '\\',
  '}',
  '{"a":1}',
  ']',
  '\n',
  '"_offset":',
  '\\u00',
  ' }',
  'e5',
  'k'.repeat(300),
  'h'.repeat(2000),
].map((text) => Buffer.from(text));

interface Variant {
  readonly names: readonly string[];
  readonly checks: readonly ValueCheck[];
}

/** A value and what lies before it. */
interface Packed {
  readonly value: Buffer;
  readonly before: Buffer;
  /** It begins a buffer of its own. */
  readonly isApart: boolean;
}

type ChecksFor = (names: (typeof filledNames)[number]) => readonly ValueCheck[];

export function openValues({ seed, control, shrink = true }: KindOptions): Promise<Kind> {
  return Promise.resolve(valuesOf(seed, control ? brokenChecks : valueChecks, shrink));
}

export function valuesOf(seed: number, checksFor: ChecksFor, shrink: boolean): Kind {
  const variants: Variant[] = filledNames.map((names) => ({ names, checks: checksFor(names) }));
  return {
    concurrency: 1,
    run: (caseNumber: number) => {
      const random = new Random(seed, 'values', caseNumber);
      const variant = random.pick(variants);
      const values = packed(random);
      const what = faultOf(values, variant);
      if (what === undefined) return undefined;
      return shrink ? shortened(values, what, variant) : { what, input: inputOf(values) };
    },
  };
}

/** As a rule one; some that fit and one behind them; now and then more than one call of the kernel takes. */
function packed(random: Random): Packed[] {
  const pack = (value: Buffer): Packed => ({ value, before: random.pick(between), isApart: random.chance(0.2) });
  const fitting = Buffer.from(
    random.pick(['{"n":1}', '{}', '{"a":"text","b":[1,{"c":null}]}', `{"long":"${'x'.repeat(250)}"}`, ' {"n":1}\n']),
  );
  const ahead = random.chance(0.6) ? 0 : random.chance(0.02) ? random.small(3000) : random.small(12);
  return [
    ...Array.from({ length: ahead }, () => pack(fitting)),
    pack(valueOf(random)),
    ...(random.chance(0.2) ? [pack(valueOf(random))] : []),
  ];
}

function placesOf(values: readonly Packed[]): ValuePlace[] {
  const places: ValuePlace[] = [];
  for (let from = 0; from < values.length;) {
    let to = from + 1;
    while (to < values.length && !values[to]!.isApart) to++;
    const group = values.slice(from, to);
    const data = Buffer.concat([...group.flatMap(({ before, value }) => [before, value]), group[0]!.before]);
    let at = 0;
    for (const { before, value } of group) {
      places.push({ data, start: at + before.length, end: at + before.length + value.length });
      at += before.length + value.length;
    }
    from = to;
  }
  return places;
}

/** What is wrong with the product's answers about these values; undefined: nothing. */
function faultOf(values: readonly Packed[], { names, checks }: Variant): string | undefined {
  const places = placesOf(values);
  const [answer, ...others] = checks.map((check) => check.first(places));
  const other = others.findIndex((each) => each?.index !== answer?.index || each?.text !== answer?.text);
  if (other >= 0)
    return `${checks[0]?.name} and ${checks[other + 1]?.name} differ: ${JSON.stringify(answer ?? 'taken')}, ${JSON.stringify(others[other] ?? 'taken')}`;
  const index = values.findIndex(({ value }) => expected(value, names).kind === 'refused');
  const should = index < 0 ? undefined : expected(values[index]!.value, names);
  if (answer === undefined) return should?.kind === 'refused' ? `a value is sent although ${should.why}` : undefined;
  if (index < 0 || answer.index < index) return `a value that may be sent is refused: it ${answer.text}`;
  return answer.index > index && should?.kind === 'refused' ? `a value is sent although ${should.why}` : undefined;
}

async function shortened(values: readonly Packed[], what: string, variant: Variant): Promise<Finding> {
  const kindOf = (text: string | undefined): string | undefined => text?.replace(/\d+/g, '#').slice(0, 40);
  const fails = (some: readonly Packed[]): boolean => kindOf(faultOf(some, variant)) === kindOf(what);
  const few = values.length > 50 ? values : await shrinkList(values, (some) => Promise.resolve(fails(some)));
  const last = few.at(-1)!;
  const short = await shrinkBytes(last.value, (value) => fails([...few.slice(0, -1), { ...last, value }]));
  const all = [...few.slice(0, -1), { ...last, value: short }];
  return { what: faultOf(all, variant) ?? what, input: inputOf(all) };
}

function inputOf(values: readonly Packed[]): string {
  return values
    .slice(-5)
    .map(({ value }) => escaped(value))
    .join(' | ');
}
