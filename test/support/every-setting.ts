// Every setting that a profile may have, with values that it may have, tried on statements as the adapter sends them.
import { request } from 'node:http';
import { command, query } from '../stack/clients.js';

/** A statement as it went over the wire. */
export interface Sent {
  readonly path: string;
  readonly body: Buffer;
}

interface Setting {
  readonly name: string;
  readonly type: string;
  readonly value: string;
}

export interface Tried {
  readonly name: string;
  readonly value: string;
}

/** What texts and maps are tried with; of most others a value is a name of something that is not there. */
const texts: Readonly<Record<string, readonly string[]>> = {
  additional_result_filter: ['0'],
  additional_table_filters: ["{'db.t': '0'}"],
  compatibility: ['22.8', '24.3'],
  session_timezone: ['Pacific/Kiritimati'],
  parallel_replicas_custom_key: ['_offset'],
  count_distinct_implementation: ['uniq'],
};

/** Of settings that end, slow down or log the try itself, and nothing else. */
const untried =
  /^(sleep|ast_fuzzer|send_logs_level$|function_sleep|max_network_bandwidth|max_local_(read|write)_bandwidth|max_execution_speed|s3queue|http_response_headers$|http_zlib|enable_http_compression$|output_format_|format_|log_|trace_|memory_profiler|query_profiler|jemalloc|metrics_perf|opentelemetry)/;

export async function settingsToTry(url: string, pinned: Readonly<Record<string, string>>): Promise<readonly Tried[]> {
  const rows = await query<Setting>(
    url,
    'SELECT name, type, value FROM system.settings WHERE NOT is_obsolete ORDER BY name',
  );
  const found: Tried[] = [];
  for (const setting of rows) {
    const { name } = setting;
    if (name in pinned || untried.test(name)) continue;
    for (const value of await valuesOf(url, setting)) if (value !== setting.value) found.push({ name, value });
  }
  return found;
}

async function valuesOf(url: string, { name, type, value }: Setting): Promise<readonly string[]> {
  if (texts[name] !== undefined) return texts[name];
  if (type === 'Bool') return [value === '1' ? '0' : '1'];
  if (
    /^(UInt64|Int64|Int32|Float|Double|Seconds|Milliseconds|MaxThreads|NonZeroUInt64|UInt64Auto|FloatAuto|BoolAuto|.*Seconds)$/.test(
      type,
    )
  )
    return ['0', '1', '2'];
  if (type === 'String' || type === 'Map' || type === 'Char') return [];
  // An enumeration: the server names what there is.
  const refusal = await command(url, 'SELECT 1', { settings: { [name]: 'no such value' } }).catch((error: unknown) =>
    String(error),
  );
  const list = /Must be one of \[([^\]]*)\]/.exec(refusal)?.[1] ?? '';
  return [...list.matchAll(/'([^']*)'/g)].map((match) => match[1] ?? '');
}

export interface Answered {
  readonly status: number;
  readonly code: string | undefined;
  readonly text: string;
}

/** Sends it again, with other parameters beside its own or in their place. */
export function sendAgain(
  url: string,
  { path, body }: Sent,
  params: Readonly<Record<string, string>>,
): Promise<Answered> {
  const target = new URL(path, url);
  for (const [name, value] of Object.entries(params)) target.searchParams.set(name, value);
  return new Promise((resolve) => {
    const outgoing = request(target, { method: 'POST', timeout: 60_000, agent: false }, (incoming) => {
      let text = '';
      incoming.setEncoding('utf8');
      incoming.on('data', (part: string) => (text += part));
      incoming.on('error', () => resolve({ status: 0, code: 'cut', text }));
      incoming.on('end', () =>
        resolve({
          status: incoming.statusCode ?? 0,
          code: incoming.headers['x-clickhouse-exception-code'] as string | undefined,
          text,
        }),
      );
    });
    outgoing.on('timeout', () => outgoing.destroy(new Error('no answer')));
    // Some settings make the server hang up.
    outgoing.on('error', () => resolve({ status: 0, code: 'cut', text: '' }));
    outgoing.end(body);
  });
}

/** Runs `work` on all of them, so many at a time. */
export async function atOnce<T>(all: readonly T[], many: number, work: (one: T) => Promise<void>): Promise<void> {
  let next = 0;
  const run = async (): Promise<void> => {
    while (next < all.length) await work(all[next++]!);
  };
  await Promise.all(Array.from({ length: many }, run));
}
