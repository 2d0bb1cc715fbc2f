/**
 * The command `control`: tells a running process to pause, resume, drain or read its configuration again, at its socket
 * or over HTTP with its token. Imports: Node, config, errors, observe.
 */
import { request, type RequestOptions } from 'node:http';
import type { CheckedConfig } from '../config/config.js';
import { IngestError } from '../errors.js';
import { controlPath, type ControlAnswer, type controlActions } from '../observe/control.js';
import { DEFAULT_LISTEN, listenAddress } from '../observe/listen.js';
import { plural } from './text.js';

export interface ControlCommandOptions {
  /** In place of a configuration. */
  readonly socket?: string;
  readonly topic?: string;
  readonly partition?: number;
  readonly json?: boolean;
}

const ANSWER_LIMIT_MS = 5000;
const MAX_ANSWER_BYTES = 65_536;

/**
 * Exit code 0: it was told. A drain or a reload goes on behind it.
 *
 * @throws `KCR_CONFIG` where nothing says how the process is reached, and for what it refuses; `KCR_PREFLIGHT` where
 * nobody answers.
 */
export async function controlCommand(
  action: (typeof controlActions)[number],
  config: CheckedConfig | undefined,
  { socket, topic, partition, json = false }: ControlCommandOptions,
): Promise<number> {
  const query = new URLSearchParams();
  if (topic !== undefined) query.set('topic', topic);
  if (partition !== undefined) query.set('partition', String(partition));
  const text = query.toString();
  const body = await ask(wayTo(config, socket), `${controlPath(action)}${text === '' ? '' : `?${text}`}`);
  console.log(json ? JSON.stringify(body) : controlText(body));
  return 0;
}

interface Way {
  /** For people. */
  readonly name: string;
  readonly options: RequestOptions;
}

function wayTo(config: CheckedConfig | undefined, socket = config?.control?.socket): Way {
  if (socket !== undefined) return { name: socket, options: { socketPath: socket } };
  const http = config?.http;
  if (http?.token === undefined)
    throw new IngestError('KCR_CONFIG', 'Nothing says how the process can be told', {
      hint:
        'set "control": { "socket": "…" }, or "token" in "http", in the configuration that it runs with, or ' +
        'give --socket',
    });
  const { host, port } = listenAddress(http.listen ?? DEFAULT_LISTEN);
  // An address for all of them is none to ask.
  const asked = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
  const headers = { authorization: `Bearer ${http.token}` };
  return { name: `${asked}:${port}`, options: { host: asked, port, headers } };
}

function ask({ name, options }: Way, path: string): Promise<ControlAnswer['body']> {
  return new Promise((resolve, reject) => {
    const nobody = (why: string) =>
      reject(
        new IngestError('KCR_PREFLIGHT', `nothing answers at ${name}: ${why}`, {
          hint:
            'is the process up, and does this user own its socket? `run` writes "control is served" when it ' +
            'can be told',
        }),
      );
    const signal = AbortSignal.timeout(ANSWER_LIMIT_MS);
    const asking = request({ ...options, path, method: 'POST', signal }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (part: string) => (text.length < MAX_ANSWER_BYTES ? (text += part) : response.destroy()));
      response.on('error', (error) => nobody(error.message));
      response.on('end', () => {
        if (response.statusCode !== 200) return reject(refusal(name, response.statusCode, text));
        try {
          resolve(JSON.parse(text) as ControlAnswer['body']);
        } catch {
          nobody('what answers there is another program');
        }
      });
    });
    asking.on('error', (error: NodeJS.ErrnoException) => nobody(error.code ?? error.message));
    asking.end();
  });
}

function refusal(name: string, status: number | undefined, text: string): IngestError {
  let why = text.trim().slice(0, 500);
  try {
    why = (JSON.parse(text) as ControlAnswer['body']).error ?? why;
  } catch {
    // Said in words.
  }
  return new IngestError('KCR_CONFIG', `refused by ${name} (HTTP ${status}): ${why}`);
}

export function controlText({ asked, phase, partitions, paused }: ControlAnswer['body']): string {
  const counts = `${paused} of ${plural(partitions, 'partition')} paused`;
  switch (asked) {
    case 'drain':
      return 'It drains, and ends when everything taken is inserted, settled and committed.';
    case 'reload':
      return 'It reads its configuration again; its log says what becomes of it.';
    default:
      return phase === 'running' ? `${counts}.` : `${counts}; it is ${phase}.`;
  }
}
