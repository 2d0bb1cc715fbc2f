import { expect, test } from 'vitest';
import { OwnToken } from '../../../src/clickhouse/insert/own-token.js';
import type { ServerIdentity } from '../../../src/clickhouse/insert/settings.js';

const run = (startedMs: number | undefined): ServerIdentity => ({ version: '26.7.2.1', startedMs });

/** The server as it was when the sink looked last, and as it answers from now on; undefined: it does not. */
function token(server: ServerIdentity) {
  const at = { now: server as ServerIdentity | undefined };
  const identify = () => (at.now === undefined ? Promise.reject(new Error('not reached')) : Promise.resolve(at.now));
  return { at, own: new OwnToken({ server, identify }) };
}

test('a lost reply is asked for again under the same token, so that its rows are not doubled', async () => {
  const { own } = token(run(1_000_000));
  const first = await own.take(false);
  expect(await own.take(true)).toBe(first);
  expect(await own.fault()).toBeUndefined();
});

test.each<[string, ServerIdentity | undefined]>([
  ['was restarted', run(9_000_000)],
  ['is another version', { ...run(1_000_000), version: '26.8.1.1' }],
  ['does not say since when it runs', run(undefined)],
  ['cannot be asked', undefined],
])('a server that %s gets another one: it may remember the token and have lost the rows', async (_, now) => {
  const { own, at } = token(run(1_000_000));
  const first = await own.take(false);
  at.now = now;
  expect(await own.take(true)).not.toBe(first);
});

test('a restart while the insert was made again makes its answer prove nothing: rows would be lost', async () => {
  const { own, at } = token(run(1_000_000));
  await own.take(false);
  await own.take(true);
  at.now = run(9_000_000);
  expect(await own.fault()).toMatch(/restarted/u);
  at.now = undefined;
  expect(await own.fault()).toMatch(/cannot be asked/u);
  at.now = run(1_000_000);
  expect(await own.fault()).toBeUndefined();
});

test('two batches never share one: the second would pass for the first, and be lost', async () => {
  const server = run(1_000_000);
  expect(await token(server).own.take(false)).not.toBe(await token(server).own.take(false));
});
