/**
 * A body on its way into its request, compressed or as it is. Imports: Node, clickhouse/insert.
 */
import type { ClientRequest } from 'node:http';
import type { Transform, Writable } from 'node:stream';
import zlib from 'node:zlib';
import type { BodyPieces } from '../insert/body.js';

export type Encoding = 'gzip' | 'zstd';

type MakeZstd = (options: { readonly params: Readonly<Record<number, number>> }) => Transform;

/** Node 22.15 and later have it. */
const { createZstdCompress } = zlib as unknown as { readonly createZstdCompress?: MakeZstd };
/** ZSTD_c_compressionLevel */
const ZSTD_LEVEL = 100;

/** Why this Node cannot compress so; undefined: it can. */
export function encodingFault(encoding: 'none' | Encoding): string | undefined {
  return encoding === 'zstd' && createZstdCompress === undefined
    ? `zstd needs Node 22.15 or later, this is ${process.version}: take gzip`
    : undefined;
}

/** Writes of a body that may be under way at once: as many as there are pieces. */
const MAX_WRITES = 2;

export class Sending {
  bytes = 0;
  readonly #request: ClientRequest;
  readonly #body: BodyPieces;
  readonly #into: Writable;
  #writes = 0;

  constructor(request: ClientRequest, body: BodyPieces, encoding: Encoding | undefined) {
    this.#request = request;
    this.#body = body;
    this.#into = encoding === undefined ? request : this.#compressed(encoding);
  }

  begin(first: Uint8Array, failed: (error: Error) => void): void {
    if (this.#request.destroyed) return;
    this.#go(first, failed);
  }

  #go(made: Uint8Array | undefined, failed: (error: Error) => void): void {
    let piece = made;
    while (this.#writes < MAX_WRITES && !this.#into.destroyed && !this.#into.writableEnded) {
      try {
        piece ??= this.#body.next();
      } catch (thrown) {
        return failed(thrown as Error);
      }
      if (this.#into === this.#request) this.bytes += piece.byteLength;
      this.#writes += 1;
      if (this.#body.isOver) return void this.#into.end(piece);
      this.#into.write(piece, (error) => {
        this.#writes -= 1;
        if (error == null) this.#go(undefined, failed);
      });
      piece = undefined;
    }
  }

  #compressed(encoding: Encoding): Writable {
    // The fastest levels: inserts are many, and what they save is the network's, not the disk's.
    const packer =
      encoding === 'zstd' && createZstdCompress !== undefined
        ? createZstdCompress({ params: { [ZSTD_LEVEL]: 1 } })
        : zlib.createGzip({ level: 1 });
    packer.on('data', (packed: Buffer) => (this.bytes += packed.length));
    packer.on('error', (error) => this.#request.destroy(error));
    this.#request.once('close', () => packer.destroy());
    packer.pipe(this.#request);
    return packer;
  }
}
