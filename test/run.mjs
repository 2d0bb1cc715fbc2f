// npm test: the checks, then every test; npm run test:quick: the types, and the tests that need no server and are not
// long; npm run check: the checks alone. Ends with
// `N passed, N failed` on a line of its own, `, N skipped` after it.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const scratch = mkdtempSync(join(tmpdir(), 'kafka-clickhouse-tests-'));
const report = join(scratch, 'report.json');

const isQuick = process.argv.includes('--without-servers');

/** How many checks run side by side: what the longest ones need in memory is there twice. */
const LANES = 2;

/**
 * Each passes or fails, in a process of its own; the longest first. `types` checks all that `build` compiles, its
 * declarations included, so the build need not check it again.
 */
const checks = [
  { name: 'lint', command: ['npm', 'run', '--silent', 'lint'] },
  { name: 'types', isQuick: true, command: ['npm', 'run', '--silent', 'typecheck'] },
  { name: 'build', isQuick: true, command: ['npm', 'run', '--silent', 'build', '--', '--noCheck'] },
  { name: 'format', command: ['npm', 'run', '--silent', 'format'] },
  // Packing would build once more without the flag.
  { name: 'packaging', after: 'build', command: ['npm', 'run', '--silent', '--ignore-scripts', 'packaging'] },
  { name: 'unused', command: ['npm', 'run', '--silent', 'unused'] },
  { name: 'directions', command: ['npm', 'run', '--silent', 'directions'] },
  { name: 'lock file', command: ['npm', 'ci', '--dry-run', '--ignore-scripts', '--silent'] },
];

/** A test that goes round without a pause is ended by no time-out of its own. */
const limitMinutes = Number(process.env.TEST_LIMIT_MINUTES ?? 40);

const running = new Set();
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    for (const child of running) process.kill(-child.pid, signal);
    process.exit(signal === 'SIGINT' ? 130 : 143);
  });
}

/** A process group of its own, so that whatever it has started ends with it. */
function run(command, output = 'inherit') {
  return new Promise((resolve) => {
    const child = spawn(command[0], command.slice(1), { stdio: ['ignore', output, output], detached: true });
    running.add(child);
    const pieces = [];
    const limit = setTimeout(() => {
      console.log(`ended: it took more than ${limitMinutes} minutes`);
      process.kill(-child.pid, 'SIGKILL');
    }, limitMinutes * 60_000);
    const end = (code) => {
      clearTimeout(limit);
      running.delete(child);
      resolve({ code: code ?? 1, text: Buffer.concat(pieces).toString() });
    };
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (piece) => pieces.push(piece));
    // With pipes the output may end after the process.
    child.on('close', end);
    child.on('error', () => end(1));
  });
}

const counts = { passed: 0, failed: 0, skipped: 0 };

async function runCheck({ name, command }) {
  const startedAtMs = performance.now();
  const { code, text } = await run(command, 'pipe');
  const seconds = ((performance.now() - startedAtMs) / 1000).toFixed(1);
  counts[code === 0 ? 'passed' : 'failed'] += 1;
  // What a check has printed stands together, whatever ran beside it.
  process.stdout.write(code === 0 ? '' : text);
  console.log(`${code === 0 ? 'ok    ' : 'FAILED'} ${name} (${seconds} s)`);
}

/** Each lane takes the next one; a check that comes after another waits for it. */
async function runChecks() {
  const waiting = isQuick ? checks.filter((check) => check.isQuick) : [...checks];
  const done = new Map();
  const lane = async () => {
    for (let check = waiting.shift(); check !== undefined; check = waiting.shift()) {
      await done.get(check.after);
      const end = runCheck(check);
      done.set(check.name, end);
      await end;
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
}

async function runTests() {
  const projects = isQuick ? ['--project', 'unit'] : [];
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  const { code } = await run(['npx', 'vitest', 'run', ...projects, ...reporters]);
  try {
    const { numPassedTests, numFailedTests, numPendingTests, numTodoTests, testResults } = JSON.parse(
      readFileSync(report, 'utf8'),
    );
    counts.passed += numPassedTests;
    counts.skipped += numPendingTests + numTodoTests;
    // A file that cannot be loaded, or a hook that throws, fails without a failed test.
    const brokenFiles = testResults.filter(
      ({ status, assertionResults }) =>
        status === 'failed' && !assertionResults.some((test) => test.status === 'failed'),
    );
    counts.failed += numFailedTests + brokenFiles.length;
    if (code !== 0 && numFailedTests + brokenFiles.length === 0) counts.failed += 1;
  } catch {
    counts.failed += 1;
  }
}

await runChecks();
if (!process.argv.includes('--checks-only')) await runTests();
rmSync(scratch, { recursive: true, force: true });
console.log(
  `${counts.passed} passed, ${counts.failed} failed${counts.skipped === 0 ? '' : `, ${counts.skipped} skipped`}`,
);
process.exitCode = counts.failed === 0 && counts.passed > 0 ? 0 : 1;
