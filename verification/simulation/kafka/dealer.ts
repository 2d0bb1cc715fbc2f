// Imports: how assignments are written. Who deals in a group that a member of the newer protocol has joined: the broker.
import { assign, type Member } from '../../../src/kafka/group/assignor.js';

export function dealer(
  partitionsOf: (topic: string) => number,
): (members: readonly { readonly memberId: string; readonly metadata: Buffer }[]) => ReadonlyMap<string, Buffer> {
  return (members) => {
    const asMembers: Member[] = members.map(({ memberId, metadata }) => ({ memberId, memberMetadata: metadata }));
    const dealt = assign(asMembers, (topic) =>
      Array.from({ length: partitionsOf(topic) }, (_, partition) => partition),
    );
    return new Map(dealt.map(({ memberId, memberAssignment }) => [memberId, memberAssignment]));
  };
}
