// Room: for each line of the sink that ships which the simulation must miss, a sink without it: what it sends, or what it is
// told, is what a sink without that line would send or believe. Nothing of it ships.
import { catchError, from, throwError } from 'rxjs';
import { hasCode } from '../../src/errors.js';
import { exception, type Request, type Response, type Tampering } from '../../src/testing/clickhouse/index.js';
import type { Fate, Fault } from '../../src/testing/index.js';
import { overlay } from '../../src/overlay.js';
import { asShipped } from './play.js';
import { sabotages } from './sabotage.js';
import { Dice, type Happening, type ServerPlan } from './scenario.js';
import type { ShippedOptions } from './shipped.js';
import { kindServer, lateBlock, type ShippedScenario } from './shipped-scenario.js';

export interface ShippedSabotage {
  /** What is broken, in a sentence. */
  readonly means: string;
  readonly tampering?: ShippedOptions['tampering'];
  readonly options?: ShippedOptions;
  /** The worlds in which it can be missed. */
  readonly scenario?: (scenario: ShippedScenario) => ShippedScenario;
  /** What it must be found by. */
  readonly shows: readonly string[];
}

const wrong = ['missing', 'doubled', 'I5', 'I11', 'I8', 'I15'];

/** The settings of inserts, or of looks, without these. */
function without(kind: Request['kind'], ...names: readonly string[]): Tampering {
  return {
    request: (request) =>
      request.kind === kind
        ? {
            ...request,
            settings: Object.fromEntries(Object.entries(request.settings).filter(([name]) => !names.includes(name))),
          }
        : request,
  };
}

/** A first life whose inserts meet these faults, and what else happens; the rest as drawn. */
function shaped(
  faults: (dice: Dice) => readonly Fate[],
  more: (dice: Dice) => Partial<ShippedScenario> = () => ({}),
  server: Partial<ServerPlan> = {},
): NonNullable<ShippedSabotage['scenario']> {
  return (scenario) => {
    const dice = new Dice(scenario.seed + 5_000_011);
    const [first = scenario.lives[0]!, ...others] = scenario.lives;
    const insertFaults = faults(dice).map((fate, index): Fault => ({ port: 'insert', nth: 1 + index, fate }));
    return {
      ...scenario,
      views: [],
      truncation: undefined,
      isReadAgain: false,
      provenance: true,
      tellsTime: true,
      poisonEvery: 0,
      tombstoneEvery: 0,
      records: [6],
      lives: [
        {
          ...first,
          startMs: 10,
          asyncInserts: false,
          batch: { count: 3, bytes: 10_000, maxWaitMs: 10 },
          faults: insertFaults,
        },
        ...others.map((life) => ({ ...life, asyncInserts: false, faults: [] })),
      ],
      happenings: [],
      ...more(dice),
      server: { ...scenario.server, profile: {}, isShared: false, hasTopic: true, ...server },
    };
  };
}

/** Six partitions whose inserts are written together, into a window of twelve; of one the answer is lost. */
function beside(scenario: ShippedScenario): ShippedScenario {
  const dice = new Dice(scenario.seed + 5_000_017);
  const faults = dice.list(dice.int(1, 3), (): Fault => ({
    port: 'insert',
    nth: dice.int(1, 20),
    fate: dice.of<Fate>('lose reply', { server: { kind: 'answer', code: 241, landed: 'all' } }),
  }));
  const life = {
    ...scenario.lives[0]!,
    startMs: 10,
    chunkSize: 7,
    room: Infinity,
    asyncInserts: true,
    maxPending: 3,
    batch: { count: 1, bytes: 10_000, maxWaitMs: 10 },
    faults,
  };
  return {
    ...scenario,
    records: dice.list(6, () => 16),
    maxPending: 3,
    views: [],
    truncation: undefined,
    isReadAgain: false,
    provenance: true,
    tellsTime: true,
    poisonEvery: 0,
    tombstoneEvery: 0,
    spread: 1,
    family: 'plain',
    dedupWindowMs: 0,
    coalesceMs: 10,
    refusal: 'named',
    happenings: [],
    lives: [life],
    server: { ...kindServer, timeoutMs: 100, window: 12 },
  };
}

/** The table loses its window before anything is sent: nothing is sent a second time without a look. */
const noWindow: Happening = { kind: 'alter', atMs: 1, alteration: 'remove window' };

function withProfile(profile: Readonly<Record<string, string>>): NonNullable<ShippedSabotage['scenario']> {
  return (scenario) => ({ ...scenario, server: { ...scenario.server, profile } });
}

/** Rows of an answer changed, or taken out, of the statements whose text has `part`. */
function answers(
  part: string,
  change: (row: Record<string, unknown>) => Record<string, unknown> | undefined,
): Tampering {
  return {
    response: (request, response) => {
      if (request.kind !== 'select' || !request.text.includes(part) || response.status !== 200) return response;
      const { data } = JSON.parse(response.text) as { readonly data: Record<string, unknown>[] };
      return { ...response, text: JSON.stringify({ data: data.map(change).filter((row) => row !== undefined) }) };
    },
  };
}

function insertAnswers(change: (response: Response, queryId: string) => Response): Tampering {
  return {
    response: (request, response) => (request.kind === 'insert' ? change(response, request.queryId) : response),
  };
}

const codeOf = ({ headers }: Response) => headers['x-clickhouse-exception-code'];
const inDoubt = new Set(['159', '241', '999', '1001']);

/** Those that break a port or a stage are the same whatever the sink. */
const ofPorts = Object.fromEntries(
  (['I1', 'I2', 'I3', 'I4', 'I5', 'I6', 'I7', 'I9', 'I10', 'I11', 'I12', 'group'] as const).map(
    (name): [string, ShippedSabotage] => {
      const { means, compose } = sabotages[name];
      return [name, { means, options: { compose }, shows: [name, 'missing', 'doubled'] }];
    },
  ),
);

export const shippedSabotages: Readonly<Record<string, ShippedSabotage>> = {
  ...ofPorts,
  answer: {
    means: 'a success is believed whoever answers it',
    shows: wrong,
    tampering: () =>
      insertAnswers((response, queryId) =>
        response.status === 200
          ? { ...response, headers: { 'x-clickhouse-query-id': queryId, ...response.headers } }
          : response,
      ),
    scenario: shaped((dice) => [
      dice.of<Fate>({ server: { kind: 'balancer' } }, 'lose reply'),
      { server: { kind: 'balancer' } },
    ]),
  },
  break: {
    means: 'what an insert does when its time is up is left to the profile',
    shows: wrong,
    tampering: () => without('insert', 'timeout_overflow_mode', 'max_execution_time'),
    scenario: withProfile({ max_execution_time: '1', timeout_overflow_mode: 'break' }),
  },
  wait: {
    means: 'whether an insert waits is left to the profile',
    shows: wrong,
    tampering: () => without('insert', 'async_insert', 'wait_for_async_insert'),
    scenario: withProfile({ async_insert: '1', wait_for_async_insert: '0' }),
  },
  dedup: {
    means: 'whether tokens count is left to the profile',
    shows: wrong,
    tampering: () => without('insert', 'deduplicate_insert', 'insert_deduplicate'),
    scenario: withProfile({ deduplicate_insert: 'disable' }),
  },
  blocks: {
    means: 'the blocks of an insert are left to what each process has',
    shows: wrong,
    tampering: ({ blockRows }) => ({
      request: (request) =>
        request.kind === 'insert'
          ? {
              ...request,
              settings: {
                ...request.settings,
                max_insert_block_size: String(blockRows),
                min_insert_block_size_rows: '0',
              },
            }
          : request,
    }),
  },
  errors: {
    means: 'rows that cannot be read are skipped, if the profile says so',
    shows: [...wrong, 'I12'],
    tampering: () => without('insert', 'input_format_allow_errors_num'),
    scenario: (scenario) => ({
      ...scenario,
      poisonEvery: scenario.poisonEvery === 0 ? 5 : scenario.poisonEvery,
      onPoison: 'halt',
      server: { ...scenario.server, profile: { input_format_allow_errors_num: '100' } },
    }),
  },
  looks: {
    means: 'what a look reads is left to the profile',
    shows: wrong,
    tampering: () =>
      without(
        'select',
        'group_by_overflow_mode',
        'max_rows_to_group_by',
        'read_overflow_mode',
        'max_rows_to_read',
        'timeout_overflow_mode',
        'max_execution_time',
      ),
    scenario: shaped(
      () => ['lose reply'],
      () => ({ family: 'plain' }),
      { profile: { max_rows_to_group_by: '2', group_by_overflow_mode: 'any' } },
    ),
  },
  token: {
    means: 'inserts have no token',
    tampering: () => without('insert', 'insert_deduplication_token'),
    shows: wrong,
  },
  doubt: {
    means: 'an error after which rows may be there is taken for one after which none are',
    shows: wrong,
    tampering: () =>
      insertAnswers((response, queryId) => (inDoubt.has(codeOf(response) ?? '') ? exception(202, queryId) : response)),
    scenario: shaped(
      (dice) => [{ server: { kind: 'answer', code: dice.of(241, 159, 999), landed: dice.of('first', 'all') } }],
      () => ({ happenings: [noWindow] }),
    ),
  },
  unknown: {
    means: 'the parts that the server may still drop are believed (code 319)',
    shows: wrong,
    tampering: () => answers('parts_to_check', (row) => ({ ...row, parts: '0' })),
    // Who was told dies before that is stored: nobody else waits for it.
    scenario: (scenario) => {
      const dice = new Dice(scenario.seed + 5_000_019);
      const shapedOnce = shaped(
        () => [{ server: { kind: 'unknown part', isKept: false } }],
        () => ({ family: 'replicated', happenings: [noWindow], refusal: 'named' }),
      )(scenario);
      const [first, ...others] = shapedOnce.lives;
      return {
        ...shapedOnce,
        lives: [
          { ...first!, faults: [...first!.faults, { port: 'write', nth: dice.int(2, 4), fate: 'die before' }] },
          ...others,
        ],
      };
    },
  },
  running: {
    means: 'a look is believed while an attempt is running',
    tampering: () => answers('system.processes', () => undefined),
    shows: wrong,
    scenario: shaped(
      (dice) => [{ server: { kind: 'slow', ms: dice.int(30, 60) } }],
      (dice) => ({
        family: 'plain',
        spread: 3,
        happenings: [noWindow, { kind: 'kill', life: 0, atMs: dice.int(80, 160) }],
      }),
      { blockMs: 100 },
    ),
  },
  evidence: {
    means: 'a look concludes although the table was altered',
    shows: wrong,
    tampering: () => ({
      response: (request, response) => {
        const isAbout = (part: string) => request.kind === 'select' && request.text.includes(part);
        if (isAbout('system.mutations')) return { ...response, text: JSON.stringify({ data: [{ last: '0' }] }) };
        if (!isAbout('system.tables')) return response;
        const { data } = JSON.parse(response.text) as { readonly data: Record<string, unknown>[] };
        return { ...response, text: JSON.stringify({ data: data.map((row) => ({ ...row, altered: 1 })) }) };
      },
    }),
    scenario: shaped(
      (dice) => [dice.of<Fate>('lose reply', 'die after', { server: { kind: 'answer', code: 241, landed: 'all' } })],
      (dice) => ({
        family: 'plain',
        happenings: [
          { kind: 'alter', atMs: dice.int(60, 110), alteration: 'drop and add provenance' },
          { kind: 'kill', life: 0, atMs: dice.int(60, 110) },
        ],
      }),
    ),
  },
  table: {
    means: 'any table of its name is taken for the one that was written to',
    shows: wrong,
    tampering: () =>
      answers('system.tables', (row) => ({
        ...row,
        uuid: '00000000-0000-4000-8000-000000000001',
        engine_full: String(row['engine_full']).replace(/tables\/\d+/, 'tables/1'),
      })),
  },
  window: {
    means: 'a table without a window is taken for one with it',
    shows: wrong,
    tampering: () =>
      answers('system.tables', (row) => ({
        ...row,
        altered: 1,
        engine_full: String(row['engine_full']).replace('deduplication_window = 0', 'deduplication_window = 10000'),
      })),
  },
  overflow: {
    means: 'what others push out of the window is not counted',
    tampering: () => answers('system.parts', () => undefined),
    shows: wrong,
    scenario: shaped(
      () => ['lose reply', 'lose reply'],
      (dice) => ({ happenings: dice.list(3, (): Happening => ({ kind: 'other writers', atMs: dice.int(40, 200) })) }),
      { window: 30, otherBlocks: 40 },
    ),
  },
  together: {
    means: 'inserts that were written together are counted as one',
    shows: wrong,
    tampering: () => ({
      request: (request) =>
        request.kind === 'select' ? { ...request, text: request.text.replaceAll('toInt64(rows)', '0') } : request,
    }),
    scenario: beside,
  },
  unsent: {
    means: 'what an insert has left in the table is forgotten when its repetition is not sent',
    shows: [...wrong, 'unsettled', 'stuck'],
    options: {
      compose: (process, plan, scenario, dice) =>
        asShipped(
          {
            ...process,
            sink: overlay(process.sink, {
              prepare: (batch) => {
                const frozen = process.sink.prepare(batch);
                return overlay(frozen, {
                  insert: () =>
                    from(frozen.insert()).pipe(
                      catchError((error: unknown) =>
                        throwError(() =>
                          hasCode(error, 'KCR_INSERT_RETRIABLE') ? error.with({ mayHaveLanded: undefined }) : error,
                        ),
                      ),
                    ),
                });
              },
            }),
          },
          plan,
          scenario,
          dice,
        ),
    },
    scenario: (scenario) => ({
      ...scenario,
      spread: 3,
      tellsTime: false,
      views: [],
      poisonEvery: 5,
      onPoison: 'exclude',
      refusal: 'surely',
      lives: scenario.lives.map((life) => ({ ...life, asyncInserts: true })),
      server: { ...scenario.server, refuses: 'nameless', profile: {} },
    }),
  },
  own: {
    means: 'what is missing goes out as a fill at once, while an attempt under the range’s own token is on its way',
    shows: ['I16', 'missing', 'doubled'],
    options: { compose: sabotages.I16.compose },
    scenario: () => lateBlock(),
  },
  nameless: {
    means: 'a refusal that names no record is blamed on the first one',
    shows: wrong,
    tampering: () =>
      insertAnswers((response, queryId) =>
        codeOf(response) === '190' ? exception(117, queryId, 'Cannot read JSON field here: (at row 1)') : response,
      ),
    scenario: (scenario) => ({
      ...scenario,
      views: [],
      poisonEvery: 5,
      onPoison: 'exclude',
      server: { ...scenario.server, refuses: 'nameless' },
    }),
  },
  restart: {
    means: 'a server that was started again is taken for the same run of itself',
    shows: [...wrong],
    tampering: () => answers('uptime()', (row) => ({ ...row, now: '1763800200000', uptime: 1000 })),
    scenario: (scenario) => ({ ...scenario, provenance: false }),
  },
};
