/**
 * Room: the state store in this process's memory, for tests and for at-least-once. It survives nothing.
 */
import { defer, of, type Observable } from 'rxjs';
import { IngestError } from '../errors.js';
import { decodeState, encodeState, neverStored, stateName } from '../model/state-codec.js';
import type { PartitionState } from '../model/state.js';
import type { Claim, StateKey, StateStore } from '../ports.js';
import { asClaim, ownership, fenced, firstWrite, nextWrite } from './claim.js';
