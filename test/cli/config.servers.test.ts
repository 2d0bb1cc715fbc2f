// ESM configurations as Node itself imports them: a mistake is told by its place, never by what stands there.
import { expect, test } from 'vitest';
import { configFile, program } from './program.js';

const esm = `export default {
  kafka: { brokers: ['127.0.0.1:9092'], groupId: 'g' },
  clickhouse: { url: 'http://ch:8123', password: 'hunter2' },
  delivery: 'at-least-once',
  routes: [{ topic: 'a', table: 'b', unknown: 1 }],
};
`;

test.each([
  ['a quote is missing at the end', esm.replace("hunter2'", 'hunter2'), /line 3, column \d+: this is not JavaScript/],
  [
    'a quote is missing at the beginning',
    esm.replace("'hunter2", 'hunter2'),
    /line 3, column \d+: this is not JavaScript/,
  ],
  ['both are missing', esm.replace("'hunter2'", 'hunter2'), /line 3, column \d+: it throws a ReferenceError/],
  ['a colon is missing', esm.replace('password:', 'password'), /line 3, column \d+: this is not JavaScript/],
  ['none: it is read, and another key refused', esm, /routes\[0\]: unknown key "unknown"/],
  ['none, but the mark that some editors put before the text', `\uFEFF${esm}`, /routes\[0\]: unknown key "unknown"/],
  ['it throws what is meant for people', "throw new Error('set MY_REGION');", /line 1, column \d+: set MY_REGION/],
  ['no default export', 'export const password = "hunter2";', /it has no default export/],
])('F9: %s', async (_what, text, says) => {
  const { code, stderr, stdout } = await program(['check', configFile(text, 'config.mjs')]).ended;
  expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringMatching(says) as string });
  expect(stderr + stdout).not.toContain('hunter2');
});
