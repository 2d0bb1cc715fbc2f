import { describe, expect, it } from 'vitest';
import {
  conditionalSettings,
  fingerprintOf,
  insertSettings,
  insertToken,
  MIN_UPTIME_S,
  parseFingerprint,
  queryIdOf,
  sameRun,
} from '../../../src/clickhouse/insert/settings.js';

const all = new Set(conditionalSettings);
/** As they were made before settings were pinned that cut no block. */
const [FINGERPRINT, OLD_FINGERPRINT] = ['adaa24a4', '2cc4ca66'];

describe('the settings of an insert', () => {
  it('make a batch one block, its token count, and nothing be skipped', () => {
    expect(insertSettings({}, all).deduplicated).toMatchObject({
      async_insert: '0',
      insert_deduplicate: '1',
      deduplicate_insert: 'enable',
      deduplicate_blocks_in_dependent_materialized_views: '1',
      materialized_views_ignore_errors: '0',
      max_insert_block_size: '10000000',
      min_insert_block_size_rows: '10000000',
      min_insert_block_size_bytes: '2000000000',
      max_insert_block_size_bytes: '0',
      input_format_parallel_parsing: '0',
      input_format_allow_errors_num: '0',
      input_format_allow_errors_ratio: '0',
      input_format_skip_unknown_fields: '1',
      date_time_input_format: 'best_effort',
      insert_keeper_max_retries: '3',
    });
  });

  it('I1: let no limit of a profile end an insert, or a view behind it, with a good answer', () => {
    const { deduplicated, plain, asyncInsert } = insertSettings({}, all, 100);
    for (const settings of [deduplicated, plain, asyncInsert]) {
      for (const mode of ['timeout', 'read', 'group_by', 'sort', 'result', 'distinct', 'set', 'join', 'transfer'])
        expect(settings).toHaveProperty(`${mode}_overflow_mode`, 'throw');
      expect(settings).toMatchObject({
        limit: '0',
        offset: '0',
        additional_table_filters: '{}',
        max_execution_time: '0',
        max_rows_to_group_by: '0',
        ignore_materialized_views_with_dropped_target_table: '0',
      });
    }
    expect(() => insertSettings({ group_by_overflow_mode: 'any' }, all)).toThrow('which is pinned to throw');
    // With an error at its end a limit is the user's own matter.
    expect(insertSettings({ max_execution_time: 60 }, all).deduplicated).toHaveProperty('max_execution_time', '60');
  });

  it('I1: have the fingerprint that they had before these were pinned: ranges in doubt are replayed under their tokens', () => {
    expect(insertSettings({}, all).fingerprint).toBe(FINGERPRINT);
    expect(insertSettings({}, new Set()).fingerprint).toBe(OLD_FINGERPRINT);
  });

  it('switch deduplication off where there is no token: identical batches are meant', () => {
    expect(insertSettings({}, all).plain).toMatchObject({
      insert_deduplicate: '0',
      deduplicate_insert: 'disable',
      deduplicate_blocks_in_dependent_materialized_views: '0',
    });
  });

  it('leave out what an older server does not know, since it would refuse the insert', () => {
    const old = insertSettings({}, new Set());
    for (const name of conditionalSettings) {
      expect(old.deduplicated).not.toHaveProperty(name);
      expect(old.plain).not.toHaveProperty(name);
    }
  });

  it('take what a user adds, and let what is only a default be changed', () => {
    const { deduplicated } = insertSettings(
      { insert_quorum: 2, input_format_skip_unknown_fields: false, insert_keeper_max_retries: 9 },
      all,
    );
    expect(deduplicated).toMatchObject({
      insert_quorum: '2',
      input_format_skip_unknown_fields: '0',
      insert_keeper_max_retries: '9',
    });
  });

  it.each([
    'async_insert',
    'insert_deduplicate',
    'deduplicate_insert',
    'max_insert_block_size',
    'max_insert_block_size_bytes',
    'input_format_parallel_parsing',
    'materialized_views_ignore_errors',
    'deduplicate_blocks_in_dependent_materialized_views',
    'insert_deduplication_token',
    'query',
    'query_id',
    'param_x',
    'send_progress_in_http_headers',
    'session_id',
  ])('refuse a user’s %s', (name) => {
    expect(() => insertSettings({ [name]: 1 }, new Set())).toThrow(expect.objectContaining({ code: 'KCR_CONFIG' }));
  });

  it('keep a value one row and its provenance ours, whatever a profile says', () => {
    for (const settings of [
      insertSettings({}, all).deduplicated,
      insertSettings({}, all).plain,
      insertSettings({}, all, 500).asyncInsert,
    ]) {
      expect(settings).toMatchObject({
        timeout_overflow_mode: 'throw',
        input_format_json_ignore_unnecessary_fields: '0',
        input_format_json_max_depth: '1000',
      });
    }
  });

  it.each([
    ['timeout_overflow_mode', 'break'],
    ['input_format_json_ignore_unnecessary_fields', 1],
    ['input_format_json_ignore_unnecessary_fields', true],
    ['input_format_json_max_depth', 100],
  ])('refuse a user’s %s of %s, but not the value that is sent anyway', (name, value) => {
    expect(() => insertSettings({ [name]: value }, all)).toThrow(expect.objectContaining({ code: 'KCR_CONFIG' }));
    const pinnedTo = insertSettings({}, all).deduplicated[name]!;
    expect(insertSettings({ [name]: pinnedTo }, all).deduplicated[name]).toBe(pinnedTo);
  });

  // Computed by the version before these were pinned: its ranges in doubt are replayed under their tokens, not looked for.
  it.each([
    [{}, 'adaa24a4', '2cc4ca66'],
    [{ insert_quorum: 2, input_format_import_nested_json: true }, 'ad913a8c', 'fbc239c7'],
    [{ input_format_json_ignore_unnecessary_fields: 0 }, '4fb73b67', '293e2021'],
    [{ timeout_overflow_mode: 'throw' }, '70a3d9d3', 'e7fb93d0'],
  ])('of %j have the fingerprint that ranges in doubt were recorded with', (extras, fingerprint, ofOldServer) => {
    expect(insertSettings(extras as Record<string, string | number | boolean>, all).fingerprint).toBe(fingerprint);
    expect(insertSettings(extras as Record<string, string | number | boolean>, all, 500).fingerprint).toBe(fingerprint);
    expect(insertSettings(extras as Record<string, string | number | boolean>, new Set()).fingerprint).toBe(
      ofOldServer,
    );
  });

  it('have a fingerprint that changes with them and with nothing else', () => {
    const one = insertSettings({ insert_quorum: 2, max_threads: 1 }, all).fingerprint;
    expect(insertSettings({ max_threads: 1, insert_quorum: 2 }, all).fingerprint).toBe(one);
    expect(insertSettings({ max_threads: 2, insert_quorum: 2 }, all).fingerprint).not.toBe(one);
    expect(one).toMatch(/^[0-9a-f]{8}$/);
  });
});

describe('the fingerprint an intent records', () => {
  const server = { version: '26.7.2.1', startedMs: Date.UTC(2026, 10, 22, 8, 30) };

  it('is readable, and can be read again', () => {
    const text = fingerprintOf(server, 'ce876a22');
    expect(text).toBe('kcr1 clickhouse=26.7.2.1 started=2026-11-22T08:30:00.000Z settings=ce876a22');
    expect(parseFingerprint(text)).toEqual({ ...server, settings: 'ce876a22' });
    expect(parseFingerprint(fingerprintOf({ version: '1', startedMs: undefined }, 'x'))).toEqual({
      version: '1',
      startedMs: undefined,
      settings: 'x',
    });
    expect(parseFingerprint('kcr2 something else')).toBeUndefined();
  });

  it('tells a restart, and when in doubt calls it one', () => {
    const later = (ms: number) => ({ ...server, startedMs: server.startedMs + ms });
    expect(sameRun(server, later(0))).toBe(true);
    expect(sameRun(server, later(999))).toBe(true);
    expect(sameRun(later(999), server)).toBe(true);
    expect(sameRun(server, { ...server, startedMs: undefined })).toBe(false);
    expect(sameRun({ ...server, startedMs: undefined }, server)).toBe(false);
    expect(sameRun(undefined, server)).toBe(false);
    expect(sameRun(server, { ...server, version: '26.8.1.1' })).toBe(false);
  });

  it('tells even the quickest restart: a start is believed only when it lies as far back as this', () => {
    // Whole seconds of uptime make a start look up to a second later than it was.
    const restarted = { ...server, startedMs: server.startedMs + MIN_UPTIME_S * 1000 - 1000 };
    expect(sameRun(server, restarted)).toBe(false);
  });
});

describe('token and query id', () => {
  it('name the table, so that one range may go into two', () => {
    expect(insertToken('kcr1:c:t:0:3:1-9', 'db', 'a')).toBe('kcr1:c:t:0:3:1-9:db.a');
  });

  it('a query id is the same for every attempt and different for every token', () => {
    expect(queryIdOf('a')).toBe(queryIdOf('a'));
    expect(queryIdOf('a')).not.toBe(queryIdOf('b'));
    expect(queryIdOf('a')).toMatch(/^kcr-[0-9a-f]{32}$/);
  });
});
