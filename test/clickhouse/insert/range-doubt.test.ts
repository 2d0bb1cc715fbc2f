// The last word of a sink before something is sent. The names say what would be lost without it.
import { describe, expect, it } from 'vitest';
import { type KnownNow, RangeDoubt } from '../../../src/clickhouse/insert/range-doubt.js';
import { fingerprintOf } from '../../../src/clickhouse/insert/settings.js';
import { IngestError } from '../../../src/errors.js';
import type { Intent } from '../../../src/model/state.js';

const server = { version: '26.7.2.1', startedMs: 5 };
const table = {
  id: 'u1',
  columns: 'tpo-LsUInt32',
  alteredS: 1,
  shape: 's',
  family: 'plain',
  keepsTokens: true,
} as const;
const known: KnownNow = { budgetMs: 1_000, server, settings: 'pinned', table };
const intent: Intent = {
  first: 10,
  last: 12,
  rows: 3,
  atMs: 0,
  tables: ['db.t'],
  settings: fingerprintOf(server, 'pinned'),
  tokenForm: 2,
  excluded: [],
  written: { id: 'u1', columns: table.columns, alteredS: 1, shape: 's' },
};
const doubtOf = (fields: { replay?: boolean; token?: string | undefined } = {}) =>
  new RangeDoubt({ intent, token: 't', replay: false, ...fields });
const lost = new IngestError('KCR_INSERT_IN_DOUBT', 'the connection broke');
const forgetful: KnownNow = { ...known, table: { ...table, keepsTokens: false } };

describe('the last word before something is sent', () => {
  it('lets it go while the token tells', () => {
    expect(doubtOf({ replay: true }).lastWord(known, 1_000)).toBeUndefined();
  });

  it('rows twice: a process that was frozen since it asked does not send', () => {
    expect(doubtOf().lastWord(known, 1_001)).toMatch(/^not sent before the table was asked: the range was recorded/);
  });

  it('a partition that stands: once the table was asked it sends', () => {
    const doubt = doubtOf();
    doubt.noteLook(1_500, table);
    expect(doubt.lastWord(known, 2_500)).toBeUndefined();
  });

  it('rows twice: what was seen grows old, too', () => {
    const doubt = doubtOf();
    doubt.noteLook(1_500, table);
    expect(doubt.lastWord(known, 2_501)).toContain('not sent');
  });

  it('rows twice: nor does it hold for a table that was altered since', () => {
    const doubt = doubtOf();
    doubt.noteLook(1_500, table);
    expect(doubt.lastWord({ ...known, table: { ...table, id: 'u2' } }, 1_600)).toContain('not sent');
  });

  it('a lost batch: a table without a window is no matter to what was never sent', () => {
    expect(doubtOf().lastWord(forgetful, 500)).toBeUndefined();
  });

  it.each([
    ['was lost', lost],
    ['was a refusal behind which a part may be there', new IngestError('KCR_SCHEMA', 'x', { mayHaveLanded: true })],
  ])('rows twice: it is after an attempt whose answer %s', (_, error) => {
    const doubt = doubtOf();
    doubt.noteFailure(error);
    expect(doubt.mayHaveLanded).toBe(true);
    expect(doubt.lastWord(forgetful, 500)).toContain('keeps no dedup tokens');
  });

  it('a refusal as a whole leaves nothing behind', () => {
    const doubt = doubtOf();
    doubt.noteFailure(new IngestError('KCR_SCHEMA', 'x', { mayHaveLanded: false }));
    expect(doubt.mayHaveLanded).toBe(false);
  });

  it('where nothing was promised nothing is asked', () => {
    expect(doubtOf({ token: undefined, replay: true }).lastWord(forgetful, 1e9)).toBeUndefined();
  });
});

describe('where a look shows nothing the token is relied on', () => {
  const isWindowLost = 'the table keeps no dedup tokens: its dedup window is 0';
  it('when the look was for it, and nothing speaks against it then', () => {
    const doubt = doubtOf({ replay: true });
    expect(doubt.trusting(undefined, known, 500)(known, 500)).toBe(true);
  });

  it('rows twice: not when the table has forgotten it by then', () => {
    const doubt = doubtOf({ replay: true });
    expect(doubt.trusting(undefined, known, 500)(forgetful, 500)).toBe(false);
    expect(doubt.trusting(isWindowLost, forgetful, 500)(forgetful, 500)).toBe(false);
  });

  it('a record left out twice: not when somebody wants to know what is there', () => {
    expect(doubtOf({ replay: true }).trusting('a record of it is refused now', known, 500)(known, 500)).toBe(false);
  });
});
