// A Java consumer of the newer group protocol that ends with the test.
import { onTestFinished } from 'vitest';
import { joinByNewProtocol, type JavaMember } from '../support/new-protocol.js';

export async function javaMember(...of: Parameters<typeof joinByNewProtocol>): Promise<JavaMember> {
  const member = await joinByNewProtocol(...of);
  onTestFinished(() => member.kill());
  return member;
}
