// Plain HTTP to ClickHouse, for the oracle: nothing of the product's own way.
import http from 'node:http';

export interface ServerAnswer {
  readonly isGood: boolean;
  /** ClickHouse's own number of an error. */
  readonly code: number | undefined;
  readonly body: Buffer;
}

const MOST_CONNECTIONS = 8;

export class PlainServer {
  readonly #url: URL;
  readonly #agent = new http.Agent({ keepAlive: true, maxSockets: MOST_CONNECTIONS });

  constructor(url: string) {
    this.#url = new URL(url);
  }

  /** The statement in the url and bytes behind it, or the statement alone in the body. */
  send(params: Readonly<Record<string, string>>, body: Buffer): Promise<ServerAnswer> {
    return new Promise((resolve, reject) => {
      const path = `/?${new URLSearchParams(params).toString()}`;
      const headers = { 'content-length': body.length };
      const request = http.request(
        { method: 'POST', host: this.#url.hostname, port: this.#url.port, path, agent: this.#agent, headers },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.on('error', reject);
          response.on('end', () => {
            const code = response.headers['x-clickhouse-exception-code'];
            const isGood = response.statusCode === 200 && code === undefined;
            resolve({ isGood, code: code === undefined ? undefined : Number(code), body: Buffer.concat(chunks) });
          });
        },
      );
      request.on('error', reject);
      request.end(body);
    });
  }

  /** Throws what the server says against it. */
  async run(sql: string): Promise<Buffer> {
    const { isGood, body } = await this.send({}, Buffer.from(sql));
    if (!isGood) throw new Error(`${sql.slice(0, 200)}: ${body.toString('latin1').slice(0, 400)}`);
    return body;
  }

  close(): void {
    this.#agent.destroy();
  }
}
