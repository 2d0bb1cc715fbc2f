// The run of `npm run bench:outage` in short, on servers of its own: ClickHouse is killed for a while in the middle of a
// backlog.
import { expect, test } from 'vitest';
import { startStack } from '../stack/stack.js';
import { complaints, runOutage } from '../support/outage.js';

/** `npm run bench:outage` asks for 400; loaded machines collect their garbage later. */
const mostRssMb = 420;

test('while ClickHouse is away memory stays flat and the group as it is; then the backlog is caught up with', async () => {
  const stack = await startStack({ useEnvironment: false });
  try {
    const outage = await runOutage(stack, { rows: 600_000, outageMs: 12_000, sessionTimeoutMs: 6000 });
    const {
      rssMb,
      caughtUpSeconds,
      exactness: { produced, missing, doubled },
    } = outage;
    console.log(JSON.stringify({ produced, missing, doubled, rssMb, caughtUpSeconds }));
    expect(complaints(outage, mostRssMb)).toEqual([]);
    expect(outage.rowsAtKill, 'it was killed in the middle').toBeLessThan(600_000);
    expect(outage.retries, 'the outage was felt').toBeGreaterThan(0);
    expect(outage.heartbeatsUnheard).toBe(0);
  } finally {
    await stack.stop();
  }
}, 300_000);
