/**
 * The instruments of an ingestion in a registry of prom-client, which may be the caller's. Imports: Node, prom-client.
 */
import { createRequire } from 'node:module';
import type * as PromClient from 'prom-client';
import type { Registry } from 'prom-client';
import { instrument, type Instruments, type InstrumentsConfig } from './instruments.js';
import type { Observed } from './status.js';

/** Loaded when somebody wants metrics: it takes longer than all else of this folder. */
const promClient = (): typeof PromClient => createRequire(import.meta.url)('prom-client') as typeof PromClient;

/** A registry of the program's own, with what prom-client tells of Node. */
export function programRegistry(): Registry {
  const { collectDefaultMetrics, Registry: Made } = promClient();
  const registry = new Made();
  collectDefaultMetrics({ register: registry });
  return registry;
}

/** Where metrics go, and how many partitions get a label of their own. */
export interface MetricsConfig extends InstrumentsConfig {
  /** Where the instruments are registered. */
  readonly registry: Registry;
}

/** Registers the instruments and keeps them up to date. Gives what takes them out of the registry again. */
export function registerMetrics(observed: Observed, { registry, ...config }: MetricsConfig): () => void {
  const names: string[] = [];
  const stop = instrument(observed, inRegistry(registry, names), config);
  return () => {
    stop();
    for (const name of names) registry.removeSingleMetric(name);
  };
}

function inRegistry(registry: Registry, names: string[]): Instruments {
  const { Counter, Gauge, Histogram } = promClient();
  const options = <L extends string>(name: string, help: string, labelNames: readonly L[]) => {
    names.push(name);
    return { name, help, labelNames: [...labelNames], registers: [registry] };
  };
  return {
    counter: (name, help, labels = []) => {
      const counter = new Counter(options(name, help, labels));
      return { add: (values, value = 1) => counter.inc(values, value) };
    },
    histogram: (name, help, bounds, labels) => {
      const histogram = new Histogram({ ...options(name, help, labels), buckets: [...bounds] });
      return { record: (values, value) => histogram.observe(values, value) };
    },
    gauge: (name, help, labels, read) => {
      new Gauge({
        ...options(name, help, labels),
        collect() {
          this.reset();
          read((value, values) => (values === undefined ? this.set(value) : this.set(values, value)));
        },
      });
    },
  };
}
