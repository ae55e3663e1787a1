/** Options on the command line, refused: the same words as qemu-storage-daemon. */
import { expect, test } from '@jest/globals';
import { messageOf, visitText } from '../../src/index.js';
import { peers } from '../support/peers.js';
import { run } from '../support/run.js';

const OPTIONS: Readonly<Record<string, readonly [type: string, implied: string]>> = {
  '--blockdev': ['BlockdevOptions', 'driver'], '--object': ['ObjectOptions', 'qom-type'], '--export': ['BlockExportOptions', 'type'],
};

async function theirs(option: string, text: string): Promise<string> {
  const { stderr } = await run('qemu-storage-daemon', [option, text, '--blockdev', 'driver=stop'], { timeoutMs: 30_000 });
  return stderr.trim().replace(`qemu-storage-daemon: ${option} ${text}: `, '').replace(/^qemu-storage-daemon: /, '');
}

function ours(option: string, text: string): string {
  const [type, implied] = OPTIONS[option]!;
  try {
    visitText(type, text, implied);
    return "--blockdev driver=stop: Parameter 'driver' does not accept value 'stop'";
  } catch (error) {
    return messageOf(error);
  }
}

const cases: (readonly [string, string])[] = [
  ...[
    'foo', 'driver=null-co,size=1x,node-name=a', 'null-co,size=0x10,node-name=a', 'null-co,size=010,node-name=a', 'null-co,size= 5,node-name=a',
    'null-co,size=9223372036854775808', 'null-co,latency-ns=18446744073709551616', 'null-co,latency-ns=0x7fffffff,node-name=a', 'null-co,latency-ns=-x',
    'null-co,read-zeroes=maybe', 'null-co,read-zeroes=yes,node-name=a', 'null-co,read-zeroes=y,node-name=a', 'null-co,read-zeroes=true,node-name=a',
    'null-co,read-zeroes=TRUE', 'null-co,read-zeroes', 'null-co,read-zeroes=', 'null-co,foo=1', 'null-co,foo.bar=1', 'null-co,node-name.x=1', 'null-co,,x',
    'null-co,=x', 'null-co,1=x', 'null-co,.=x', 'null-co,a.=x', 'null-co,a..b=x', 'null-co,_a=x', 'null-co,__com.x_a=x', 'null-co,a.0=1,a.x=2',
    'null-co,a=1,a.x=2', 'null-co,a.x=2,a=1', 'null-co,a.1=1', 'null-co,a.0=1,a.2=1', 'null-co,a.b.3=1', `null-co,${'k'.repeat(128)}=1`, `null-co,a.${'k'.repeat(128)}=1`,
    'quorum,vote-threshold=1', 'quorum,vote-threshold=1,children=x', 'quorum,vote-threshold=1,children.0.x=1', 'quorum,vote-threshold=1,children.0.driver=file',
    'quorum,vote-threshold=1,children.0.driver=file,children.0.filename.x=1', 'raw,file.driver=file,file.filename=/x,file.locking=perhaps',
    'raw,file.driver=null-co,file.size=x', 'raw,file.0=1', 'raw', '', 'driver', '=', 'driver=', 'nbd,server.type=inet,server.host=a',
    'nbd,server.type=inet,server.host=a,server.port=1,server.to=65536', 'nbd,server.type=inet,server.host=a,server.port=1,server.to=-1',
    'nbd,server.type=inet,server.host=a,server.port=1,reconnect-delay=4294967296', 'qcow2,file=x,overlap-check=some', 'qcow2,file=x,overlap-check.mode=x',
    'blkdebug,image=x,inject-error.0.event=x', 'blkdebug,image=x,inject-error.0.event=none,inject-error.0.state=1z', 'blkdebug,image=x,max-transfer=2147483648',
    '{"driver":1}', '{', '{"driver":"null-co"} x', '{"driver":"null-co",}', '{"driver":"nu', '{"driver":nul', '{"driver":1 2', '{"driver":-', '{"driver":1} @', '{@ {', '{"a":[', '{"driver":"null-co","size":"1"}', 'null-co,node-name=a,size=1,size=z',
  ].map((text) => ['--blockdev', text] as const),
  ...[
    'foo', 'secret', 'secret,id=a,format=x', 'qom-type=iothread,id=a,poll-max-ns=x', 'throttle-group,id=a,limits.iops-total=x', 'throttle-group,id=a,x-iops-total=1.5',
    'secret,id=a,data=x,foo=1', 'tls-creds-x509,id=a,endpoint=x', 'tls-creds-x509,id=a,verify-peer=x', 'iothread', 'iothread,id=a,id=b,poll-grow=z',
    'memory-backend-ram,id=a,size=1x', 'memory-backend-ram,id=a,size=1.5', 'memory-backend-ram,id=a,size=-1', 'memory-backend-ram,id=a,size=',
    'memory-backend-ram,id=a,size=1KK', 'memory-backend-ram,id=a,size=0x', 'memory-backend-ram,id=a,size=16E', 'memory-backend-ram,id=a,size=0x1E,foo=1',
    'memory-backend-ram,id=a,host-nodes.0=65536,size=1', 'memory-backend-ram,id=a,host-nodes=1,size=1',
  ].map((text) => ['--object', text] as const),
  ...['foo', 'nbd', 'nbd,id=a', 'nbd,id=a,node-name=b,writable=x', 'nbd,id=a,node-name=b,bitmaps=x', 'nbd,id=a,node-name=b,bitmaps.0.node=x', 'nbd,id=a,node-name=b,foo=c',
    'vhost-user-blk,id=a,node-name=b,addr.type=unix', 'vhost-user-blk,id=a,node-name=b,addr.type=unix,addr.path=x,num-queues=65536',
    'vhost-user-blk,id=a,node-name=b,addr.type=unix,addr.path=x,logical-block-size=1x'].map((text) => ['--export', text] as const),
];

peers('qemu-storage-daemon')('as qemu-storage-daemon', () => {
  test('options are refused with its words', async () => {
    const told = await Promise.all(cases.map(async ([option, text]) => `${option} ${text}: ${await theirs(option, text)}`));
    expect(cases.map(([option, text]) => `${option} ${text}: ${ours(option, text)}`)).toEqual(told);
  });
});
