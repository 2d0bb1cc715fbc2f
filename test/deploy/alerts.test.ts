// Each alert fires when it should, and is quiet when it should be, as Prometheus itself evaluates it.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';

const pathOf = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const rules = pathOf('../../deploy/alerts.yaml');
const cases = readFileSync(pathOf('alerts.promtool.yaml'), 'utf8');

const hasPromtool = (() => {
  try {
    execFileSync('promtool', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    console.warn('NO PROMTOOL: the alerts are not evaluated. Install it (apt-get install prometheus).');
    return false;
  }
})();

test('every alert has a case in which it fires', () => {
  const { groups } = parse(readFileSync(rules, 'utf8')) as { groups: { rules: { alert: string }[] }[] };
  const { tests } = parse(cases) as { tests: { alert_rule_test: { alertname: string; exp_alerts: unknown[] }[] }[] };
  const firing = tests.flatMap(({ alert_rule_test }) =>
    alert_rule_test.filter(({ exp_alerts }) => exp_alerts.length > 0).map(({ alertname }) => alertname),
  );
  expect([...new Set(firing)].sort()).toEqual(groups.flatMap((each) => each.rules.map(({ alert }) => alert)).sort());
});

describe.skipIf(!hasPromtool)('promtool', () => {
  const folder = mkdtempSync(join(tmpdir(), 'kafka-clickhouse-alerts-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const promtool = (...args: readonly string[]) => execFileSync('promtool', args, { encoding: 'utf8', stdio: 'pipe' });

  test('the rules are valid, and each fires and is quiet as its cases say', () => {
    const file = join(folder, 'alerts.yaml');
    writeFileSync(file, cases.replace('ALERTS', rules));
    expect(promtool('check', 'rules', rules)).toContain('SUCCESS');
    expect(promtool('test', 'rules', file)).toContain('SUCCESS');
  });
});
