import '@xterm/xterm/css/xterm.css';
import { FitAddon } from '@xterm/addon-fit';
import { Terminal } from '@xterm/xterm';
import { useCallback, useEffect, useRef } from 'react';
import { useTranslation } from 'react-i18next';
import type { VM } from '../../api/types';
import { CopyCommand } from '../../parts/CopyCommand';
import { command } from '../../parts/command';
import type { ConsoleChannel } from './channel';
import { isLeaving } from './Screen';
import { StateBar } from './StateBar';
import { useLine } from './useLine';
import classes from './console.module.css';

interface Props {
  vm: VM | undefined;
  reference: string;
  name: string;
}

/** The serial port of a machine as a terminal. */
export function Serial({ vm, reference, name }: Props) {
  const { t } = useTranslation();
  const host = useRef<HTMLDivElement>(null);
  const tools = useRef<HTMLDivElement>(null);
  const terminal = useRef<Terminal>(undefined);
  const channel = useRef<ConsoleChannel>(undefined);

  const attach = useCallback((c: ConsoleChannel) => {
    channel.current = c;
    // What the machine said before comes again: it is not shown twice.
    terminal.current?.reset();
    c.onmessage = (e) => terminal.current?.write(new Uint8Array(e.data));
  }, []);
  const { line, state } = useLine(
    reference,
    'serial',
    attach,
    `${vm?.status.state} ${vm?.node_name}`,
  );
  useEffect(() => {
    if (!host.current) return;
    const made = terminalIn(host.current, (bytes) => channel.current?.send(bytes));
    terminal.current = made.terminal;
    return made.end;
  }, []);

  return (
    <div className={classes.frame}>
      <div ref={tools} className={classes.tools} tabIndex={-1}>
        <StateBar line={line} state={state} vm={vm} />
      </div>
      <div
        className={classes.screen}
        data-line={state.at}
        onKeyDownCapture={(e) => {
          if (!isLeaving(e)) return;
          e.preventDefault();
          e.stopPropagation();
          tools.current?.focus();
        }}
      >
        <div ref={host} className={classes.host} />
      </div>
      <p className={classes.hint}>{t('console.leave')}</p>
      <CopyCommand command={command('vm', 'console', name, '--serial')} />
    </div>
  );
}

function terminalIn(
  host: HTMLElement,
  type: (bytes: Uint8Array<ArrayBuffer>) => void,
): { terminal: Terminal; end: () => void } {
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
  terminal.focus();
  const resize = new ResizeObserver(() => fit.fit());
  resize.observe(host);
  const bytes = new TextEncoder();
  const typing = terminal.onData((text) => type(bytes.encode(text)));
  return {
    terminal,
    end: () => {
      typing.dispose();
      resize.disconnect();
      terminal.dispose();
    },
  };
}
