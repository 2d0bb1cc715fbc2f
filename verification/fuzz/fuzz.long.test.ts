import { describe, expect, test } from 'vitest';
import { batchesOf } from './batches/kind.js';
import { compressionReady } from './batches/compress.js';
import { readAsShipped, type LogSubject } from './batches/subject.js';
import { openKind, signatureOf, type Kind, type KindName } from './kind.js';
import { isOpen, openFindings } from './open-findings.js';
import { Random } from './random.js';
import { runCases, type Found } from './run-cases.js';
import { escaped, shrinkBytes } from './shrink.js';
import { valuesOf } from './values/kind.js';
import { valueChecks, type ValueCheck } from './values/subject.js';
import { watchKind } from './watch.js';

const SEED = 2026;
/** Only against a test that never ends: the machine may have other work. */
const PATIENCE_MS = 120_000;

/** In a thread that is ended when a case does not end. */
async function violationsOf(name: KindName, cases: number): Promise<Found[]> {
  const found: Found[] = [];
  const result = await watchKind(
    name,
    { seed: SEED, control: false, shrink: false },
    { from: 0, to: cases, runMs: Infinity },
    (each) => found.push(each),
  );
  expect(result.cases).toBe(cases);
  return found.filter((each) => !isOpen(name, each));
}

async function findingsOf(name: KindName, cases: number, control = false, from = 0, seed = SEED): Promise<Found[]> {
  const kind = await openKind(name, { seed, control, shrink: false });
  const found: Found[] = [];
  const hooks = { began: () => undefined, ended: () => undefined, found: (each: Found) => void found.push(each) };
  const done = await runCases(kind, { from, to: from + cases, isOver: () => false }, hooks);
  await kind.close?.();
  expect(done).toBe(cases);
  return found;
}

const kindsOf = (found: readonly Found[]): string[] => [...new Set(found.map(signatureOf))].sort();

describe('nothing that the oracle refuses is taken, and nothing that it takes is refused', () => {
  test(
    'values: what may be sent is what JSON.parse takes, but for what the documents say',
    async () => {
      expect(kindsOf(await violationsOf('values', 12_000))).toEqual([]);
    },
    PATIENCE_MS,
  );

  test(
    'record batches: no wrong record, no missing one, no exception that is not ours',
    async () => {
      expect(kindsOf(await violationsOf('batches', 4_000))).toEqual([]);
    },
    PATIENCE_MS,
  );

  test(
    'answers: a bad one costs its connection, and none counts as delivered that proves no success',
    async () => {
      expect(kindsOf(await violationsOf('answers', 1_200))).toEqual([]);
    },
    PATIENCE_MS,
  );
});

describe('the fuzzers can fail', () => {
  test('A1: a check that leaves what is wrong inside of the braces to the server is found', async () => {
    expect(kindsOf(await findingsOf('values', 500, true))).toEqual(
      expect.arrayContaining([
        'a value is sent although JSON.parse refuses it',
        'a value is sent although it names a provenance column',
      ]),
    );
  });

  test('D3: a reader that believes damaged bytes is found', async () => {
    expect(kindsOf(await findingsOf('batches', 500, true))).toContain(
      'a batch is taken although its checksum is wrong',
    );
  });

  const signatures = async (kind: Kind): Promise<string[]> => {
    const found: string[] = [];
    for (let caseNumber = 0; caseNumber < 300; caseNumber++) {
      const finding = await kind.run(caseNumber);
      if (finding !== undefined) found.push(signatureOf(finding));
    }
    return found;
  };

  test('an implementation that names another byte than its twin, and one that refuses what may be sent, are found', async () => {
    const changed = (change: (text: string) => string): ValueCheck[] =>
      valueChecks([]).map((check, index) => ({
        name: check.name,
        first: (places) => {
          const refusal = check.first(places);
          return refusal === undefined || index === 0 ? refusal : { ...refusal, text: change(refusal.text) };
        },
      }));
    const elsewhere = valuesOf(
      SEED,
      () => changed((text) => text.replace(/\d+$/, (at) => String(Number(at) + 1))),
      false,
    );
    expect(await signatures(elsewhere)).toContainEqual(expect.stringMatching(/^the kernel and the twin differ/));
    const strict = valuesOf(SEED, () => [{ name: 'strict', first: () => ({ index: 0, text: 'is refused' }) }], false);
    expect(await signatures(strict)).toContain('a value that may be sent is refused: it is refused');
  });

  test('a reader that changes an offset, drops a record, skips too much or throws what is not ours is found', async () => {
    await compressionReady();
    const broken = (change: LogSubject): Promise<string[]> => signatures(batchesOf(SEED, change));
    const shifted: LogSubject = async (piece) => {
      const read = await readAsShipped(piece);
      return { ...read, records: read.records.map((record) => ({ ...record, offset: record.offset + 1 })) };
    };
    const dropping: LogSubject = async (piece) => {
      const read = await readAsShipped(piece);
      return { ...read, records: read.records.slice(0, -1) };
    };
    const foreign: LogSubject = async (piece) => ({
      ...(await readAsShipped(piece)),
      error: { isOurs: false, text: 'RangeError' },
    });
    const greedy: LogSubject = async (piece) => ({
      ...(await readAsShipped(piece)),
      skippable: { first: 0, last: Number.MAX_SAFE_INTEGER },
    });
    expect(await broken(greedy)).toContain('to pass over a damaged batch passes over sound records of others');
    expect(await broken(shifted)).toContain('a record has offset # instead of #');
    expect(await broken(dropping)).toContain('# records are missing');
    expect(await broken(foreign)).toContain('an exception that is not ours: RangeError');
  });

  test('a client that takes every 200 for a success, and a decoder that takes whatever comes, are found', async () => {
    expect(kindsOf(await findingsOf('answers', 400, true))).toEqual(
      expect.arrayContaining([
        'a length that is none is believed',
        expect.stringMatching(/^an answer counts as delivered that proves no success/),
        expect.stringMatching(/^an answer to Fetch # is read although/),
      ]),
    );
  });

  test(
    'D4: a case that never ends is reported with its number, and the others go on',
    async () => {
      const found: Found[] = [];
      const result = await watchKind(
        'batches',
        { seed: SEED, control: false, loopsAtMarkers: true },
        { from: 20, to: 26, runMs: 60_000, hangMs: 1_000 },
        (each) => found.push(each),
      );
      expect(found.map(({ what }) => what)).toContain('the case does not end');
      expect(found.map(({ caseNumber }) => caseNumber)).toContain(21);
      expect(result.cases).toBe(6);
    },
    PATIENCE_MS,
  );
});

describe('a finding can be played again', () => {
  test('the same seed and case make the same numbers, others make others', () => {
    const draw = (...path: (string | number)[]): number[] =>
      Array.from(
        { length: 5 },
        (
          (random) => () =>
            random.next()
        )(new Random(...path)),
      );
    expect(draw(1, 'values', 3)).toEqual(draw(1, 'values', 3));
    expect(draw(1, 'values', 3)).not.toEqual(draw(1, 'values', 4));
    expect(draw(1, 'values', 3)).not.toEqual(draw(2, 'values', 3));
  });

  test('one case alone finds what it found among the others', async () => {
    const [first] = await findingsOf('values', 200, true);
    expect(first).toBeDefined();
    expect(await findingsOf('values', 1, true, first!.caseNumber)).toEqual([first]);
  });

  test.each(openFindings.filter(({ kind }) => kind !== 'neighbourhoods'))(
    'an open finding of $kind is still one, or is to be taken off the list',
    async ({ kind, what, seed, caseNumber }) => {
      expect((await findingsOf(kind, 1, false, caseNumber, seed)).map(signatureOf)).toEqual([
        expect.stringMatching(what),
      ]);
    },
  );

  test('an input is made as short as it can be and still fails', async () => {
    const short = await shrinkBytes(Buffer.from('{"n":1,"text":"abc","a":[}'), (bytes) => bytes.includes('[}'));
    expect(escaped(short)).toBe('[}');
    expect(escaped(Buffer.from([0x5c, 0x00, 0xff, 0x41]))).toBe('\\\\\\x00\\xffA');
  });
});
