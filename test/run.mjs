// npm test: the checks, then every test; npm run test:quick: those that need no server. Ends with `N passed, N failed` on a line of its own, `, N skipped` after it.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const scratch = mkdtempSync(join(tmpdir(), 'kafka-clickhouse-tests-'));
const report = join(scratch, 'report.json');

/** Each is one check that passes or fails. */
const checks = [
  ['lock file', 'npm', 'ci', '--dry-run', '--ignore-scripts', '--silent'],
  ['build', 'npm', 'run', '--silent', 'build'],
  ['format', 'npm', 'run', '--silent', 'format'],
  ['types', 'npm', 'run', '--silent', 'typecheck'],
  ['lint', 'npm', 'run', '--silent', 'lint'],
  ['directions', 'npm', 'run', '--silent', 'directions'],
  ['unused', 'npm', 'run', '--silent', 'unused'],
  ['packaging', 'npm', 'run', '--silent', 'packaging'],
];

/** A test that goes round without a pause is ended by no time-out of its own. */
const limitMinutes = Number(process.env.TEST_LIMIT_MINUTES ?? 40);

/** A process group of its own, so that whatever it has started ends with it. */
function run(command, ...args) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: ['ignore', 'inherit', 'inherit'], detached: true });
    const interrupted = (signal) => {
      process.kill(-child.pid, signal);
      process.exit(signal === 'SIGINT' ? 130 : 143);
    };
    const limit = setTimeout(() => {
      console.log(`ended: it took more than ${limitMinutes} minutes`);
      process.kill(-child.pid, 'SIGKILL');
    }, limitMinutes * 60_000);
    const end = (code) => {
      clearTimeout(limit);
      for (const signal of ['SIGINT', 'SIGTERM']) process.off(signal, interrupted);
      resolve(code ?? 1);
    };
    for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, interrupted);
    child.on('exit', end);
    child.on('error', () => end(1));
  });
}

const counts = { passed: 0, failed: 0, skipped: 0 };
for (const [name, ...command] of checks) {
  const startedAtMs = performance.now();
  const isGood = (await run(...command)) === 0;
  counts[isGood ? 'passed' : 'failed'] += 1;
  console.log(`${isGood ? 'ok    ' : 'FAILED'} ${name} (${((performance.now() - startedAtMs) / 1000).toFixed(1)} s)`);
}

if (!process.argv.includes('--checks-only')) {
  const project = process.argv.includes('--without-servers') ? ['--project', 'unit'] : [];
  const code = await run(
    'npx',
    'vitest',
    'run',
    ...project,
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${report}`,
  );
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
rmSync(scratch, { recursive: true, force: true });
console.log(
  `${counts.passed} passed, ${counts.failed} failed${counts.skipped === 0 ? '' : `, ${counts.skipped} skipped`}`,
);
process.exitCode = counts.failed === 0 && counts.passed > 0 ? 0 : 1;
