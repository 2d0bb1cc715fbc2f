// The status page in a real browser: what a person reads in ten seconds. Needs Chromium; says so where there is none.
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium, type Browser, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { IngestError } from '../../src/errors.js';
import { serveStatus, type StatusServer } from '../../src/observe/http.js';
import { assignmentOf, ByHand } from './observed.js';

const places = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const executablePath = process.env.CHROMIUM ?? places.find((place) => existsSync(place));
if (executablePath === undefined)
  console.warn('NO CHROMIUM: the status page is not tested. Install it (apt-get install chromium), or set CHROMIUM.');

describe.skipIf(executablePath === undefined)('the status page', () => {
  let browser: Browser;
  let page: Page;
  let server: StatusServer | undefined;
  const errors: string[] = [];

  beforeAll(async () => {
    browser = await chromium.launch({ executablePath: executablePath!, args: ['--no-sandbox'] });
  });
  afterAll(() => browser.close());
  afterEach(async () => {
    await page.close();
    await server?.close();
    server = undefined;
    expect(errors.splice(0)).toEqual([]);
  });

  const open = async (hand: ByHand, width = 1600): Promise<Page> => {
    server = await serveStatus(hand.observed, { listen: '127.0.0.1:0' });
    page = await browser.newPage({ viewport: { width, height: 900 } });
    page.on('pageerror', (error) => errors.push(String(error)));
    page.on('console', (message) => {
      if (message.type() === 'error' && !message.text().includes('net::')) errors.push(message.text());
    });
    await page.goto(server.url);
    await page.locator('#stages li').first().waitFor();
    return page;
  };
  const sentence = () => page.locator('#sentence').innerText();

  test('says in one sentence that nothing is assigned, and shows no row', async () => {
    const hand = new ByHand();
    hand.meter.phase = 'running';
    await open(hand);
    expect(await sentence()).toBe('Running, and no partition is assigned to this process.');
    expect(await page.locator('#partitions tr').count()).toBe(0);
  });

  test('says that it is up to date', async () => {
    await open(new ByHand().assign(0).logEnds(10).deliver(0, 9, 10));
    expect(await sentence()).toMatch(/^Up to date: \d+ rows\/s/);
    expect(await page.locator('#partitions tr td').last().innerText()).toBe('up to date');
  });

  test('a lag names what limits, and marks its stage', async () => {
    const hand = new ByHand().assign(0).logEnds(100_000);
    hand.meter.call('insert', 'flights', 0);
    await open(hand);
    expect(await sentence()).toBe('100K records behind (nothing moves); ClickHouse limits.');
    expect(await page.locator('#stages li[aria-current]').innerText()).toContain('insertDeduped');
  });

  test('a halted partition stands first, in words that say what to do, and in the list of what happened', async () => {
    await open(new ByHand().assign(0, 1).logEnds(500, 10).halt(1));
    expect(await sentence()).toBe('1 of 2 partitions have halted: KCR_SCHEMA.');
    const first = page.locator('#partitions tr').first();
    expect(await first.innerText()).toContain('flights/1');
    expect(await first.innerText()).toContain('What to do: add it');
    expect(await page.locator('#notices').innerText()).toContain('What to do: add it');
  });

  test('two hundred partitions are found by name and sorted by a column, with the keyboard alone', async () => {
    const hand = new ByHand().assign(...Array.from({ length: 200 }, (_, i) => i));
    hand.logEnds(...Array.from({ length: 200 }, (_, i) => i * 10));
    await open(hand);
    expect(await page.locator('#shown').innerText()).toBe('200');
    await page.locator('#find').focus();
    await page.keyboard.type('flights/19');
    expect(await page.locator('#partitions tr').count()).toBe(11);
    await page.keyboard.press('Control+A');
    await page.keyboard.press('Delete');
    await page.locator('th button', { hasText: 'Lag' }).focus();
    await page.keyboard.press('Enter');
    expect(await page.locator('#partitions tr td').first().innerText()).toBe('flights/199');
    await page.keyboard.press('Enter');
    expect(await page.locator('#partitions tr td').first().innerText()).toBe('flights/0');
  });

  test('a process that is gone is said to be gone, and comes back by itself', async () => {
    const hand = new ByHand().assign(0).logEnds(0);
    await open(hand);
    const listen = new URL(server!.url).host;
    await server!.close();
    await page.locator('#sentence', { hasText: 'does not answer' }).waitFor();
    server = await serveStatus(hand.observed, { listen });
    await page.locator('#sentence', { hasText: 'Up to date' }).waitFor({ timeout: 20_000 });
  });

  test.each([375, 1600])('nothing hangs over the edge at %i pixels, with a long error', async (width) => {
    const long = new IngestError('KCR_SCHEMA', 'a'.repeat(300), { hint: `ALTER TABLE ${'b'.repeat(300)}` });
    await open(new ByHand().assign(0, 1).logEnds(5, 5).halt(0, long), width);
    const overhang = await page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth');
    expect(overhang).toBe(0);
  });

  test.each(['light', 'dark'] as const)('axe finds nothing serious, %s', async (colorScheme) => {
    const hand = new ByHand().assign(0, 1).logEnds(500, 10).halt(1);
    hand.meter.event({ kind: 'lost', assignment: assignmentOf(5) });
    await open(hand);
    await page.emulateMedia({ colorScheme });
    const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
    const violations = await page.evaluate<{ id: string; impact: string; nodes: unknown[] }[]>(
      `${axe}; axe.run().then(({ violations }) => violations.map(({ id, impact, nodes }) => ({ id, impact, nodes: nodes.map((node) => node.html) })))`,
    );
    expect(violations.filter(({ impact }) => impact === 'serious' || impact === 'critical')).toEqual([]);
  });
});
