// Values: the product's check against JSON.parse, both ways, and its implementations against each other.
import type { Finding, Kind, KindOptions } from '../kind.js';
import { Random } from '../random.js';
import { escaped, shrinkBytes } from '../shrink.js';
import { valueOf } from './generate.js';
import { expected } from './oracle.js';
import { brokenChecks, valueChecks, type ValueCheck } from './subject.js';

/** The provenance columns of the table that the values are for. */
const filledNames: readonly (readonly string[])[] = [
  [], ['_topic', '_partition', '_offset'], ['_offset'], ['_topic', '_partition', '_offset', '_timestamp', '_key', '_headers'],
];
/** What lies before and behind a value in the memory it came in: a check that reads beyond its end is misled by it. */
const around = ['', '"', '\\', '}', '{"a":1}', ']', '\n', '"_offset":', '\\u00', ' }', 'e5'].map((text) => Buffer.from(text));

interface Variant {
  readonly names: readonly string[];
  readonly checks: readonly ValueCheck[];
}

export async function openValues({ seed, control, shrink = true }: KindOptions): Promise<Kind> {
  const variants: Variant[] = await Promise.all(filledNames.map(async (names) => ({ names, checks: control ? brokenChecks() : await valueChecks(names) })));
  return {
    concurrency: 1,
    run: (caseNumber) => {
      const random = new Random(seed, 'values', caseNumber);
      const value = valueOf(random);
      const variant = random.pick(variants);
      const place: Place = { before: random.pick(around), behind: random.pick(around) };
      const what = fault(value, variant, place);
      if (what === undefined) return undefined;
      return shrink ? shortened(value, what, variant, place) : { what, input: escaped(value) };
    },
  };
}

interface Place {
  readonly before: Buffer;
  readonly behind: Buffer;
}

/** What is wrong with the product's answers about this value; undefined: nothing. */
function fault(value: Buffer, { names, checks }: Variant, { before, behind }: Place): string | undefined {
  const data = Buffer.concat([before, value, behind]);
  const answers = checks.map((check) => check.fault(data, before.length, before.length + value.length));
  const [first] = answers;
  const other = answers.findIndex((answer) => answer !== first);
  if (other >= 0) return `${checks[0]?.name} and ${checks[other]?.name} differ: ${JSON.stringify(first ?? 'taken')}, ${JSON.stringify(answers[other] ?? 'taken')}`;
  const should = expected(value, names);
  if (should.kind === 'taken') return first === undefined ? undefined : `a value that may be sent is refused: it ${first}`;
  return first === undefined ? `a value is sent although ${should.why}` : undefined;
}

async function shortened(value: Buffer, what: string, variant: Variant, place: Place): Promise<Finding> {
  const kindOf = (text: string | undefined): string | undefined => text?.replace(/\d+/g, '#').slice(0, 40);
  const short = await shrinkBytes(value, (bytes) => kindOf(fault(bytes, variant, place)) === kindOf(what));
  return { what: fault(short, variant, place) ?? what, input: escaped(short) };
}
