// Answers to an insert, as ClickHouse, proxies and broken connections give them: what the shipped sink makes of each
// against what the answer proves.
import { lastValueFrom, from } from 'rxjs';
import { openClickHouseSink } from '../../../src/clickhouse/sink.js';
import { IngestError } from '../../../src/errors.js';
import type { PreparingSink } from '../../../src/ports.js';
import { batchOf, record } from '../../../test/clickhouse/fixtures.js';
import { fakeClickHouse, type FakeInsert, type FakeServer } from '../../../test/clickhouse/fake-server.js';
import type { Random } from '../random.js';
import { serverText, type Truth } from './server-texts.js';

interface Plan {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** After so many bytes of the whole answer the connection ends; undefined: it is whole. */
  readonly cutAt: number | undefined;
  /** In place of an answer in HTTP. */
  readonly raw: string | undefined;
  readonly truth: Truth;
}

/** What an insert came to, as far as the stages hear of it. */
export interface Outcome {
  readonly isDelivered: boolean;
  readonly error: IngestError | undefined;
}

export type AnswerRule = (outcome: Outcome, status: number) => Outcome;
export const asShipped: AnswerRule = (outcome) => outcome;
/** Broken on purpose: takes every 200 for a success. */
export const anyStatus200: AnswerRule = (outcome, status) =>
  status === 200 ? { isDelivered: true, error: undefined } : outcome;

const FIRST_OFFSET = 1000;
const REQUEST_TIMEOUT_MS = 3_000;
const pages = [
  '<html><body>502 Bad Gateway</body></html>',
  '{"error":"no upstream"}',
  'OK',
  '\n',
  'Ok.\n',
  'Code: 60. DB::Exception: not ours',
  'Code: 27. DB::ParsingException: (at row 1)',
  '\u0000',
] as const;

export class ClickHouseAnswers {
  readonly #fake: FakeServer;
  readonly #sink: PreparingSink;
  readonly #rule: AnswerRule;
  readonly #plans = new Map<string, Plan>();

  private constructor(fake: FakeServer, sink: PreparingSink, rule: AnswerRule) {
    [this.#fake, this.#sink, this.#rule] = [fake, sink, rule];
    fake.onInsert = (insert) => this.#answer(insert);
  }

  static async open(rule: AnswerRule): Promise<ClickHouseAnswers> {
    const fake = await fakeClickHouse();
    const sink = await openClickHouseSink({
      url: fake.url,
      routes: [{ topic: 'orders', table: 't' }],
      requestTimeoutMs: REQUEST_TIMEOUT_MS,
    });
    return new ClickHouseAnswers(fake, sink, rule);
  }

  async fault(
    random: Random,
    caseNumber: number,
  ): Promise<{ readonly what: string | undefined; readonly input: string }> {
    const rows = 1 + random.int(5);
    const plan = planOf(random, rows);
    const token = `token-${caseNumber}`;
    this.#plans.set(token, plan);
    this.#fake.inserts.length = 0;
    const outcome = this.#rule(await this.#insert(token, rows), plan.status);
    this.#plans.delete(token);
    return { what: faultOf(outcome, plan), input: JSON.stringify({ ...plan, rows }) };
  }

  async close(): Promise<void> {
    await this.#sink.close();
    await this.#fake.close();
  }

  async #insert(token: string, rows: number): Promise<Outcome> {
    const records = Array.from({ length: rows }, (_, index) => record(FIRST_OFFSET + index, { id: index }));
    const frozen = this.#sink.prepare(batchOf(records, { token }));
    try {
      await lastValueFrom(from(frozen.insert()));
      return { isDelivered: true, error: undefined };
    } catch (thrown) {
      const error =
        thrown instanceof IngestError ? thrown : new IngestError('KCR_INTERNAL', `thrown: ${String(thrown)}`);
      return { isDelivered: false, error };
    } finally {
      frozen.release();
    }
  }

  #answer({ params, socket, response }: FakeInsert): void {
    const token = (params.get('insert_deduplication_token') ?? '').replace(/:default\.t$/, '');
    const plan = this.#plans.get(token);
    if (plan === undefined) return void response.destroy();
    const text =
      plan.raw ?? `HTTP/1.1 ${plan.status} Word\r\n${headerText(plan, params.get('query_id') ?? '')}\r\n${plan.body}`;
    const bytes = Buffer.from(text);
    // Whatever is said is said on a connection that is not used again: what lies behind an answer must not become the next one.
    socket.end(plan.cutAt === undefined ? bytes : bytes.subarray(0, Math.floor(plan.cutAt * bytes.length)));
  }
}

function headerText({ headers, body }: Plan, queryId: string): string {
  const all = { 'content-length': String(Buffer.byteLength(body)), connection: 'close', ...headers };
  return Object.entries(all)
    .map(([name, value]) => `${name}: ${value.replace('{query_id}', queryId)}\r\n`)
    .join('');
}

const ours = { 'x-clickhouse-query-id': '{query_id}' } as const;

function planOf(random: Random, rows: number): Plan {
  const summary = (read: number | string): Record<string, string> => ({
    'x-clickhouse-summary': `{"read_rows":"${read}","read_bytes":"9","written_rows":"${rows}","written_bytes":"9"}`,
  });
  const whole = { cutAt: undefined, raw: undefined, body: '' };
  switch (random.int(8)) {
    case 0:
      return {
        ...whole,
        status: 200,
        headers: { ...ours, ...(random.chance(0.7) ? summary(rows) : {}) },
        truth: { kind: 'delivered' },
      };
    case 1: {
      const { status, code, text, truth } = serverText(random, rows);
      const headers = { ...ours, 'x-clickhouse-exception-code': String(code) };
      // An exception behind a status of 200 is one all the same.
      return { ...whole, status: random.chance(0.2) ? 200 : status, headers, body: text, truth };
    }
    case 2: {
      const { status, code, text, truth } = serverText(random, rows);
      return { ...whole, status, headers: { ...ours, 'x-clickhouse-exception-code': String(code) }, body: text, truth };
    }
    case 3:
      return {
        ...whole,
        status: random.pick([
          200, 200, 201, 204, 301, 400, 401, 403, 404, 405, 408, 413, 414, 418, 429, 499, 500, 502, 503, 504, 520, 999,
        ]),
        headers: {},
        body: random.pick(pages),
        truth: { kind: 'failed' },
      };
    case 4: {
      // Of an answer that was cut off only the beginning is there: it proves nothing, even where it says 200.
      const { status, code, text } = serverText(random, rows);
      const isGood = random.chance(0.5);
      const headers = isGood ? ours : { ...ours, 'x-clickhouse-exception-code': String(code) };
      return {
        ...whole,
        status: isGood ? 200 : status,
        headers: { ...headers, 'content-length': String(text.length + 20) },
        body: text,
        cutAt: random.next() / 2 ** 32,
        truth: { kind: 'in doubt' },
      };
    }
    case 5:
      return {
        ...whole,
        status: 0,
        headers: {},
        raw: random.pick([
          '',
          'HTTP/1.1 200',
          '\u0000\u0001',
          'HTTP/9.9 200 OK\r\n\r\n',
          'HTTP/1.1 abc OK\r\n\r\n',
          `HTTP/1.1 200 OK\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`,
          '<html>',
        ]),
        truth: { kind: 'in doubt' },
      };
    case 6:
      return {
        ...whole,
        status: 200,
        headers: { ...ours, 'x-clickhouse-exception-code': random.pick(['0', '117', '-1', 'abc', '', '1e3', '210']) },
        body: '',
        truth: { kind: 'failed' },
      };
    default:
      return {
        ...whole,
        status: random.pick([201, 202, 203, 206, 300, 304, 400, 404, 500, 503]),
        headers: random.chance(0.5) ? ours : {},
        truth: { kind: 'failed' },
      };
  }
}

/** What is wrong with what the sink made of the answer; undefined: nothing. */
function faultOf({ isDelivered, error }: Outcome, { truth }: Plan): string | undefined {
  if (isDelivered)
    return truth.kind === 'delivered'
      ? undefined
      : `an answer counts as delivered that proves no success (${truth.kind})`;
  if (truth.kind === 'delivered') return `a success is not taken for one: ${error?.code} ${error?.detail}`;
  const code = error?.code;
  if (code === undefined || code === 'KCR_INTERNAL')
    return `an answer is taken for a defect of the program: ${error?.detail}`;
  const { offset } = error?.fields ?? {};
  if (truth.kind === 'poison') {
    if (code !== 'KCR_POISON') return `a record that the server names is not poison but ${code}`;
    return offset === FIRST_OFFSET + truth.row - 1 ? undefined : 'another record is blamed than the server names';
  }
  if (code === 'KCR_POISON' && offset !== undefined) return 'a record is blamed that the server does not name';
  return truth.kind === 'in doubt' && code !== 'KCR_INSERT_IN_DOUBT'
    ? `an insert that may have landed is not in doubt but ${code}`
    : undefined;
}
