import '@xterm/xterm/css/xterm.css';
import { Button } from '@mantine/core';
import { IconPlugConnected } from '@tabler/icons-react';
import { FitAddon } from '@xterm/addon-fit';
import { Terminal } from '@xterm/xterm';
import { Link, useParams } from '@tanstack/react-router';
import { useEffect, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import type { Connection } from '../../api/connection';
import { useConnection, useTopics } from '../../api/context';
import { useVM } from '../../api/queries';
import type { ConsoleTicket } from '../../api/types';
import { CopyCommand } from '../../parts/CopyCommand';
import { command } from '../../parts/command';
import { Problem } from '../../parts/Problem';
import { VMMark } from '../../parts/states';
import { Page } from '../../ui/Page';
import classes from './console.module.css';

type Line = { state: 'opening' | 'open' | 'closed' } | { state: 'failed'; error: unknown };

/** The serial port of a machine as a terminal. */
export function SerialConsole() {
  const { t } = useTranslation();
  const { cluster, vm: ref } = useParams({ from: '/c/$cluster/vms/$vm/console' });
  const connection = useConnection();
  const vm = useVM(ref);
  const host = useRef<HTMLDivElement>(null);
  const [line, setLine] = useState<Line>({ state: 'opening' });
  const [turn, setTurn] = useState(0);
  useTopics('events');

  useEffect(() => {
    if (!host.current) return;
    return attach(connection, ref, host.current, setLine);
  }, [connection, ref, turn]);

  const name = vm.data?.name ?? ref;
  return (
    <Page
      title={t('console.title', { name })}
      above={
        <Link to="/c/$cluster/vms/$vm" params={{ cluster, vm: ref }} className={classes.back}>
          ← {name}
        </Link>
      }
      mark={vm.data && <VMMark state={vm.data.status.state} />}
      actions={
        (line.state === 'closed' || line.state === 'failed') && (
          <Button
            leftSection={<IconPlugConnected size={16} />}
            onClick={() => setTurn((n) => n + 1)}
          >
            {t('console.again')}
          </Button>
        )
      }
    >
      {line.state === 'failed' && <Problem error={line.error} />}
      {line.state === 'closed' && <p className={classes.closed}>{t('console.closed')}</p>}
      <div className={classes.screen} data-line={line.state}>
        <div ref={host} className={classes.host} />
      </div>
      <CopyCommand command={command('vm', 'console', name, '--serial')} />
    </Page>
  );
}

/** Joins a terminal to a machine's serial port; the function returned ends it. */
function attach(
  connection: Connection,
  vm: string,
  host: HTMLElement,
  tell: (line: Line) => void,
): () => void {
  const terminal = new Terminal({
    cursorBlink: true,
    fontFamily: 'ui-monospace, "Cascadia Mono", "DejaVu Sans Mono", monospace',
    fontSize: 14,
    scrollback: 5000,
    theme: { background: '#0b1416', foreground: '#d7e3e4', cursor: '#7fd0c2' },
  });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.open(host);
  fit.fit();
  const resize = new ResizeObserver(() => fit.fit());
  resize.observe(host);
  let socket: WebSocket | undefined;
  let ended = false;

  const open = async () => {
    tell({ state: 'opening' });
    const ticket = await connection.call<ConsoleTicket>(`/vms/${vm}/console`, {
      method: 'POST',
      body: { kind: 'serial' },
    });
    if (ended) return;
    const s = connection.openConsole(`/vms/${vm}/console/serial`, ticket.ticket);
    socket = s;
    s.binaryType = 'arraybuffer';
    s.onopen = () => {
      tell({ state: 'open' });
      terminal.focus();
    };
    s.onmessage = (e: MessageEvent<ArrayBuffer | string>) =>
      terminal.write(typeof e.data === 'string' ? e.data : new Uint8Array(e.data));
    s.onclose = () => {
      if (!ended) tell({ state: 'closed' });
    };
  };
  open().catch((error: unknown) => {
    if (!ended) tell({ state: 'failed', error });
  });
  const bytes = new TextEncoder();
  const typing = terminal.onData((text) => {
    if (socket?.readyState === WebSocket.OPEN) socket.send(bytes.encode(text));
  });
  return () => {
    ended = true;
    typing.dispose();
    resize.disconnect();
    socket?.close();
    terminal.dispose();
  };
}
