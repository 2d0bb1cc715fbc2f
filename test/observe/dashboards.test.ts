// What alerts and dashboard ask for is what a process exports: a name that does not exist alarms nobody.
import { readFileSync } from 'node:fs';
import { Registry } from 'prom-client';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { registerMetrics } from '../../src/observe/metrics.js';
import { ByHand } from './observed.js';

const read = (name: string) => readFileSync(new URL(`../../deploy/${name}`, import.meta.url), 'utf8');
const registry = new Registry();
registerMetrics(new ByHand().observed, { registry });
const metrics = new Map(registry.getMetricsAsArray().map((metric) => [metric.name, metric as unknown as Metric]));
interface Metric {
  readonly labelNames: readonly string[];
}

const alerts = (
  parse(read('alerts.yaml')) as { groups: { rules: { alert: string; expr: string }[] }[] }
).groups.flatMap(({ rules }) => rules.map(({ alert, expr }) => [alert, expr] as const));
const panels = (JSON.parse(read('grafana.json')) as { panels: { title: string; targets: { expr: string }[] }[] })
  .panels;
const shown = panels.flatMap(({ title, targets }) => targets.map(({ expr }) => [title, expr] as const));

describe.each([
  ['alerts', alerts],
  ['dashboard', shown],
])('%s', (_, expressions) => {
  test.each(expressions)('%s asks for metrics and labels that are exported', (_title, expr) => {
    const names = [...expr.matchAll(/\bkcr_\w+/g)].map(([name]) => name.replace(/_(bucket|sum|count)$/, ''));
    expect(names.length).toBeGreaterThan(0);
    expect(names.filter((name) => !metrics.has(name))).toEqual([]);
    const given = new Set(['le', 'instance', ...names.flatMap((name) => [...(metrics.get(name)?.labelNames ?? [])])]);
    const asked = [...expr.matchAll(/(?:\b(?:by|on) \(([^)]*)\))|(?:(\w+)=~?")/g)].flatMap(([, list, one]) =>
      one === undefined ? (list ?? '').split(', ') : [one],
    );
    expect(asked.filter((label) => !given.has(label))).toEqual([]);
  });
});

test('docs/operations.md names every metric, and none that does not exist', () => {
  const text = readFileSync(new URL('../../docs/operations.md', import.meta.url), 'utf8');
  const named = new Set([...text.matchAll(/\bkcr_\w+/g)].map(([name]) => name));
  expect([...metrics.keys()].filter((name) => !named.has(name))).toEqual([]);
  expect([...named].filter((name) => !metrics.has(name))).toEqual([]);
});
