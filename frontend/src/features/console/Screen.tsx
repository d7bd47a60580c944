import RFB from '@novnc/novnc';
import { ActionIcon, Button, Tooltip } from '@mantine/core';
import { IconClipboardText, IconMaximize } from '@tabler/icons-react';
import { useCallback, useEffect, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import type { VM } from '../../api/types';
import type { ConsoleChannel } from './channel';
import { StateBar } from './StateBar';
import { TypeText } from './TypeText';
import type { Keyboard } from './typing';
import { useLine } from './useLine';
import classes from './console.module.css';

interface Props {
  vm: VM | undefined;
  reference: string;
  name: string;
}

/** A machine's screen, with keyboard and pointer. */
export function Screen({ vm, reference, name }: Props) {
  const { t } = useTranslation();
  const [frame, setFrame] = useState<HTMLDivElement | null>(null);
  const host = useRef<HTMLDivElement>(null);
  const leave = useRef<HTMLButtonElement>(null);
  const rfb = useRef<RFB>(undefined);
  const [typing, setTyping] = useState(false);

  const label = t('console.screenOf', { name });
  const attach = useCallback(
    (channel: ConsoleChannel) => {
      if (host.current) rfb.current = connect(host.current, channel, label);
    },
    [label],
  );
  const { line, state } = useLine(
    reference,
    'screen',
    attach,
    `${vm?.status.state} ${vm?.node_name}`,
  );
  const writes = state.at === 'open' && state.notice.writes;
  const allow = (may: boolean) => {
    if (rfb.current) rfb.current.viewOnly = !may;
  };
  useEffect(() => allow(writes), [state, writes]);

  const keyboard: Keyboard = {
    sendKey: (...key) => rfb.current?.sendKey(...key),
  };

  const onKey = (e: React.KeyboardEvent) => {
    if (!isLeaving(e)) return;
    e.preventDefault();
    e.stopPropagation();
    for (const [keysym, code] of LEAVING) rfb.current?.sendKey(keysym, code, false);
    allow(false); // noVNC too forgets that they are held
    allow(writes);
    leave.current?.focus();
  };

  return (
    <div ref={setFrame} className={classes.frame}>
      <div className={classes.tools}>
        <StateBar line={line} state={state} vm={vm} />
        <Button
          ref={leave}
          size="compact-sm"
          variant="default"
          disabled={!writes}
          onClick={() => {
            rfb.current?.sendCtrlAltDel();
            rfb.current?.focus();
          }}
        >
          Ctrl Alt Del
        </Button>
        <Button
          size="compact-sm"
          variant="default"
          disabled={!writes}
          leftSection={<IconClipboardText size={14} />}
          onClick={() => setTyping(true)}
        >
          {t('console.type.open')}
        </Button>
        {document.fullscreenEnabled && (
          <Tooltip label={t('console.full')} withArrow>
            <ActionIcon
              variant="default"
              aria-label={t('console.full')}
              onClick={() => void full(frame).then(() => rfb.current?.focus())}
            >
              <IconMaximize size={16} />
            </ActionIcon>
          </Tooltip>
        )}
      </div>
      <div className={classes.screen} data-line={state.at} onKeyDownCapture={onKey}>
        <div ref={host} className={classes.display} data-screen={state.at} />
      </div>
      <p className={classes.hint}>{t('console.leave')}</p>
      {typing && (
        <TypeText
          keyboard={keyboard}
          portal={frame}
          onClose={() => {
            setTyping(false);
            rfb.current?.focus();
          }}
        />
      )}
    </div>
  );
}

/** The keys that are held when it is left: their release is not seen any more. */
const LEAVING = [
  [0xffe3, 'ControlLeft'],
  [0xffe4, 'ControlRight'],
  [0xffe9, 'AltLeft'],
  [0xffea, 'AltRight'],
] as const;

/** Ctrl-Alt-G lets go of the keyboard, as in QEMU's own window. */
export function isLeaving(e: React.KeyboardEvent): boolean {
  return e.ctrlKey && e.altKey && e.code === 'KeyG';
}

async function full(frame: HTMLElement | null): Promise<void> {
  if (document.fullscreenElement) await document.exitFullscreen();
  else await frame?.requestFullscreen();
}

/** Shows a connection's screen in the place of the one before. */
function connect(host: HTMLElement, channel: ConsoleChannel, label: string): RFB {
  const focused = host.contains(document.activeElement);
  host.replaceChildren();
  const rfb = new RFB(host, channel, { shared: true });
  rfb.scaleViewport = true;
  rfb.showDotCursor = true;
  rfb.background = 'transparent';
  const canvas = host.querySelector('canvas');
  if (canvas) {
    canvas.tabIndex = 0;
    canvas.role = 'application';
    canvas.ariaLabel = label;
  }
  if (focused || document.activeElement === document.body) rfb.focus();
  return rfb;
}
