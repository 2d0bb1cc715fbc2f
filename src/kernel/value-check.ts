/**
 * Values checked many at a time, by WebAssembly where it has SIMD and by its twin in JavaScript elsewhere. The
 * module's memory is fixed, and shared: a check runs from its first value to its last without a pause.
 * Imports: nothing.
 */
import { FaultKind, type ReservedNames, type ValueFault } from './faults.js';
import { twinFault } from './twin.js';
import { valueCheckWasm } from './value-check.wasm.js';

/** Goes from value to value: `next()` moves to the first, then to each further one, and the fields are of that one. */
export interface ValueCursor {
  next(): boolean;
  /** What the value lies in; values that follow each other in the same one are copied together. */
  readonly data: Uint8Array;
  readonly valueStart: number;
  /** -1: there is no value. */
  readonly valueLength: number;
}

/** What is wrong, and with which value, counted from 0. */
export interface IndexedFault extends ValueFault {
  readonly index: number;
}

export interface CheckedValues {
  /** Of all values; it says nothing when one of them is at fault. */
  readonly bytes: number;
  /** Of the first value that is not one row of its own; undefined: every one is. */
  readonly fault: IndexedFault | undefined;
}

/** Is each value one JSON object by RFC 8259 without a field of the first level that is reserved? */
export function checkValues(values: ValueCursor, names: ReservedNames = 0): CheckedValues {
  const kernel = sharedKernel();
  return kernel === undefined ? checkByTwin(values, names) : kernel.check(values, names);
}

/** The same of one value, which lies in `data` from `start` up to `end`. */
export function valueFault(
  data: Uint8Array,
  start = 0,
  end = data.length,
  names: ReservedNames = 0,
): ValueFault | undefined {
  let isNext = false;
  const one: ValueCursor = { data, valueStart: start, valueLength: end - start, next: () => (isNext = !isNext) };
  const { fault } = checkValues(one, names);
  return fault === undefined ? undefined : { kind: fault.kind, at: fault.at };
}

/** As `checkValues`, without WebAssembly. */
export function checkByTwin(values: ValueCursor, names: ReservedNames = 0): CheckedValues {
  let bytes = 0;
  for (let index = 0; values.next(); index++) {
    const { data, valueStart, valueLength } = values;
    if (valueLength < 0) return { bytes, fault: { index, kind: FaultKind.NoValue, at: 0 } };
    bytes += valueLength;
    const fault = twinFault(data, valueStart, valueStart + valueLength, names);
    if (fault !== undefined) return { bytes, fault: { index, ...fault } };
  }
  return { bytes, fault: undefined };
}

/** Does this machine check with WebAssembly? */
export function hasKernel(): boolean {
  return sharedKernel() !== undefined;
}

let shared: { readonly kernel: Kernel | undefined } | undefined;

/** Made when the first value comes: it takes half a megabyte. */
function sharedKernel(): Kernel | undefined {
  shared ??= { kernel: openKernel() };
  return shared.kernel;
}

/** Undefined where WebAssembly, or its SIMD, is missing. */
function openKernel(): Kernel | undefined {
  const { WebAssembly: engine } = globalThis as { readonly WebAssembly?: WebAssemblyEngine };
  const bytes = Buffer.from(valueCheckWasm, 'base64');
  if (engine?.validate(bytes) !== true) return undefined;
  return new Kernel(new engine.Instance(new engine.Module(bytes)).exports);
}

/** What is used of it: Node's types leave it out. */
interface WebAssemblyEngine {
  validate(bytes: Uint8Array): boolean;
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: KernelExports };
}

/** What `assembly/value-check.ts` exports. */
interface KernelExports {
  readonly memory: { readonly buffer: ArrayBuffer };
  readonly places: { readonly value: number };
  readonly maxPlaces: { readonly value: number };
  readonly window: { readonly value: number };
  readonly windowBytes: { readonly value: number };
  check(count: number, names: number): number;
  kind(): number;
  position(): number;
}

/** Bytes between two values (key, headers) that are copied with them rather than passed over by a second copy. */
const MAX_GAP_BYTES = 1024;
/** Values that are checked with one call: they are still in the processor's cache from being copied. */
const CALL_BYTES = 128 * 1024;

const noBytes = new Uint8Array(0);

class Kernel {
  readonly #exports: KernelExports;
  readonly #bytes: Uint8Array;
  readonly #places: Int32Array;
  readonly #maxPlaces: number;
  readonly #window: number;
  readonly #windowBytes: number;
  /** Values that the places name, and the first one's index among all. */
  #count = 0;
  #index = 0;
  /** What will be copied next: bytes of `#data`, and where to. */
  #data: Uint8Array = noBytes;
  #from = 0;
  #to = 0;
  #target = 0;

  constructor(exports: KernelExports) {
    this.#exports = exports;
    const { memory, places, maxPlaces, window, windowBytes } = exports;
    this.#maxPlaces = maxPlaces.value;
    this.#window = window.value;
    this.#windowBytes = windowBytes.value;
    this.#bytes = new Uint8Array(memory.buffer);
    this.#places = new Int32Array(memory.buffer, places.value, 2 * this.#maxPlaces);
  }

  check(values: ValueCursor, names: ReservedNames): CheckedValues {
    this.#begin(0);
    let bytes = 0;
    try {
      while (values.next()) {
        const { data, valueStart, valueLength } = values;
        if (valueLength < 0)
          return { bytes, fault: this.#flush(names) ?? { index: this.#index, kind: FaultKind.NoValue, at: 0 } };
        bytes += valueLength;
        const fault = this.#add(data, valueStart, valueStart + valueLength, names);
        if (fault !== undefined) return { bytes, fault };
      }
      return { bytes, fault: this.#flush(names) };
    } finally {
      this.#data = noBytes; // Keeps no buffer alive.
    }
  }

  #begin(index: number): void {
    this.#index = index;
    this.#count = 0;
    this.#data = noBytes;
    this.#from = 0;
    this.#to = 0;
    this.#target = this.#window;
  }

  /** Gives the fault of a value that was added before, or of this one. */
  #add(data: Uint8Array, start: number, end: number, names: ReservedNames): IndexedFault | undefined {
    const isNear = data === this.#data && start >= this.#to && start - this.#to <= MAX_GAP_BYTES;
    if (!isNear || this.#target + end - this.#from > this.#window + CALL_BYTES || this.#count === this.#maxPlaces) {
      const fault =
        end - start > this.#windowBytes ? this.#addLarge(data, start, end, names) : this.#open(data, start, end, names);
      if (fault !== undefined || end - start > this.#windowBytes) return fault;
    }
    this.#to = end;
    const place = 2 * this.#count++;
    const shift = this.#target - this.#from;
    this.#places[place] = start + shift;
    this.#places[place + 1] = end + shift;
    return undefined;
  }

  /** Begins a new copy: behind the one before, or in a window that was emptied. */
  #open(data: Uint8Array, start: number, end: number, names: ReservedNames): IndexedFault | undefined {
    this.#copy();
    const isFull = this.#target + end - start > this.#window + CALL_BYTES || this.#count === this.#maxPlaces;
    const fault = isFull ? this.#flush(names) : undefined;
    this.#data = data;
    this.#from = start;
    this.#to = start;
    return fault;
  }

  /** A value that the window does not hold. */
  #addLarge(data: Uint8Array, start: number, end: number, names: ReservedNames): IndexedFault | undefined {
    const before = this.#flush(names);
    if (before !== undefined) return before;
    const fault = twinFault(data, start, end, names);
    const index = this.#index;
    this.#begin(index + 1);
    return fault === undefined ? undefined : { index, ...fault };
  }

  #copy(): void {
    if (this.#to === this.#from) return;
    const { byteOffset, buffer } = this.#data;
    // A view, as `subarray` would make one, but cheaper.
    this.#bytes.set(new Uint8Array(buffer, byteOffset + this.#from, this.#to - this.#from), this.#target);
    this.#target += this.#to - this.#from;
    this.#from = this.#to;
  }

  /** Checks what was added, and starts again. */
  #flush(names: ReservedNames): IndexedFault | undefined {
    this.#copy();
    const index = this.#exports.check(this.#count, names);
    if (index >= 0)
      return { index: this.#index + index, kind: this.#exports.kind() as FaultKind, at: this.#exports.position() };
    this.#begin(this.#index + this.#count);
    return undefined;
  }
}
