import { describe, expect, it } from 'vitest';
import {
  allowedPins,
  PinnedLooks,
  truthfulLooks,
  unlimitedLooks,
} from '../../../src/clickhouse/client/look-settings.js';

const all = [...Object.keys(truthfulLooks), ...Object.keys(unlimitedLooks)];
const known = (names: readonly string[], fixed: readonly string[] = []) =>
  names.map((name) => ({ name, readonly: fixed.includes(name) ? 1 : 0 }));
const refused = (code: number) => Object.assign(new Error('refused'), { code });
const codeOf = (thrown: unknown) => (thrown as { code?: number }).code;

describe('the settings of a look', () => {
  it('I2: are all sent, and nothing is asked, while the server takes them', async () => {
    const ask = () => Promise.reject(new Error('asked'));
    await expect(
      new PinnedLooks().run({ ask, codeOf }, (pins) => Promise.resolve(Object.keys(pins).sort())),
    ).resolves.toEqual([...all].sort());
  });

  it.each([115, 164, 452])(
    'are those that the server has and lets be changed after it refused one (code %i), from then on',
    async (code) => {
      const looks = new PinnedLooks();
      const tried: (readonly string[])[] = [];
      const query = (pins: object) => {
        tried.push(Object.keys(pins));
        return 'final' in pins ? Promise.reject(refused(code)) : Promise.resolve('rows');
      };
      const ask = () => Promise.resolve(known(all.filter((name) => name !== 'final')));
      await expect(looks.run({ ask, codeOf }, query)).resolves.toBe('rows');
      await expect(looks.run({ ask, codeOf }, query)).resolves.toBe('rows');
      expect(tried.map((names) => names.includes('final'))).toEqual([true, false, false]);
    },
  );

  it('I2: without those that make an answer true nothing is asked: the refusal stands', async () => {
    const ask = () => Promise.resolve(known(all, all));
    const query = (pins: object) => ('limit' in pins ? Promise.reject(refused(164)) : Promise.resolve('less than all'));
    await expect(new PinnedLooks().run({ ask, codeOf }, query)).rejects.toMatchObject({ code: 164 });
  });

  it('leave out a limit that may not be changed, and nothing else', () => {
    const pins = allowedPins(known(all, ['max_rows_to_read', 'read_overflow_mode']));
    expect(pins).not.toHaveProperty('max_rows_to_read');
    expect(pins).toMatchObject({ read_overflow_mode: 'throw', max_rows_to_group_by: '0' });
  });

  it('are not taken from a list that cannot be whole, as one that a profile has filtered', async () => {
    expect(allowedPins(known(['limit']))).toBeUndefined();
    await expect(
      new PinnedLooks().run({ ask: () => Promise.resolve([]), codeOf }, () => Promise.reject(refused(115))),
    ).rejects.toMatchObject({ code: 115 });
  });

  it('leave another failure to whoever asked', async () => {
    const ask = () => Promise.reject(new Error('asked'));
    await expect(new PinnedLooks().run({ ask, codeOf }, () => Promise.reject(refused(60)))).rejects.toMatchObject({
      code: 60,
    });
  });
});
