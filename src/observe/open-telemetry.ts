/**
 * The instruments of an ingestion, and one span a batch, for OpenTelemetry: through `@opentelemetry/api`, which is
 * loaded when somebody wants it. Imports: @opentelemetry/api, Node, errors.
 */
import { createRequire } from 'node:module';
import type * as Api from '@opentelemetry/api';
import type { Meter, MeterProvider, ObservableGauge, TracerProvider } from '@opentelemetry/api';
import { IngestError } from '../errors.js';
import { BatchSpans } from './batch-spans.js';
import { instrument, type Instruments, type InstrumentsConfig } from './instruments.js';
import type { Observed } from './status.js';

export interface OpenTelemetryConfig extends InstrumentsConfig {
  /** Where the instruments are made; `false`: nowhere. @default the global one of `@opentelemetry/api` */
  readonly meterProvider?: MeterProvider | false;
  /** Where the spans are made; `false`: nowhere. @default the global one of `@opentelemetry/api` */
  readonly tracerProvider?: TracerProvider | false;
  /** Links of a span to the traces of its records, from 0 to 1000. @default 128, as the SDK keeps */
  readonly maxLinks?: number;
}

const SCOPE = 'kafka-clickhouse-rx';
const MAX_LINKS = 1000;

/**
 * Measures and traces an ingestion: the instruments of `registerMetrics` under the same names, and for each batch a
 * span `insert TOPIC`, from its first insert until it is delivered, or its partition halts or is lost. The span is
 * linked to what the header `traceparent` of its records names, as long as a sampler wants it.
 *
 * @returns What ends it; spans that are open then are ended.
 * @throws `KCR_CONFIG` where `@opentelemetry/api` is not installed, and for a limit that is none.
 */
export function registerOpenTelemetry(observed: Observed, config: OpenTelemetryConfig = {}): () => void {
  const { meterProvider, tracerProvider, maxLinks = 128, ...rest } = config;
  if (!Number.isSafeInteger(maxLinks) || maxLinks < 0 || maxLinks > MAX_LINKS)
    throw new IngestError(
      'KCR_CONFIG',
      `Expected \`maxLinks\` to be a whole number from 0 to ${MAX_LINKS}, got ${maxLinks}`,
    );
  const api = openTelemetryApi();
  const stops: (() => void)[] = [];
  if (meterProvider !== false) {
    const { instruments, stop } = ofMeter((meterProvider ?? api.metrics).getMeter(SCOPE));
    stops.push(instrument(observed, instruments, rest), stop);
  }
  if (tracerProvider !== false) {
    const spans = new BatchSpans({ api, tracer: (tracerProvider ?? api.trace).getTracer(SCOPE), maxLinks });
    stops.push(observed.listen(spans), () => spans.endAll());
  }
  return () => stops.forEach((stop) => stop());
}

/** @throws `KCR_CONFIG` where it is not installed. `load`: for tests. */
export function openTelemetryApi(load: (name: string) => unknown = createRequire(import.meta.url)): typeof Api {
  try {
    return load('@opentelemetry/api') as typeof Api;
  } catch (cause) {
    throw new IngestError('KCR_CONFIG', 'OpenTelemetry was asked for, and @opentelemetry/api is not installed', {
      hint: 'npm install @opentelemetry/api',
      cause,
    });
  }
}

function ofMeter(meter: Meter): { readonly instruments: Instruments; readonly stop: () => void } {
  const stops: (() => void)[] = [];
  const instruments: Instruments = {
    counter: (name, description) => {
      const counter = meter.createCounter(name, { description });
      return { add: (labels, value = 1) => counter.add(value, labels) };
    },
    histogram: (name, description, bounds) => {
      const advice = { explicitBucketBoundaries: [...bounds] };
      const histogram = meter.createHistogram(name, { description, advice });
      return { record: (labels, value) => histogram.record(value, labels) };
    },
    gauge: (name, description, _, read) => {
      const gauge = meter.createObservableGauge(name, { description });
      const observe: Parameters<ObservableGauge['addCallback']>[0] = (result) =>
        read((value, labels) => result.observe(value, labels));
      gauge.addCallback(observe);
      stops.push(() => gauge.removeCallback(observe));
    },
  };
  return { instruments, stop: () => stops.forEach((stop) => stop()) };
}
