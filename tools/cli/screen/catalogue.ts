/** What the screen of a machine that starts says, in one language. `{}` stands for what is put in. */
export interface Catalogue {
  /** Above everything. */
  readonly title: string
  readonly starting: string
  readonly checking: string
  readonly looking: string
  readonly restoring: string
  readonly logging: string
  readonly handing: string
  /** A bare machine: it waits for somebody to let it in; its disk is laid out; the agent is put on it. */
  readonly asking: string
  readonly laying: string
  readonly keeping: string
  /** `{}`: the name of the machine. */
  readonly name: string
  readonly compare: string
  /** `{}`: a time. */
  readonly left: string
  readonly failed: string
  /** `{}`: the code. */
  readonly code: string
  readonly details: string
  readonly hold: string
  /** `{}`: seconds. */
  readonly retry: string
  readonly unverified: string
  /** Two systems are on one computer. */
  readonly systems: string
  /** The first `{}`: a number of the list; the second: seconds. */
  readonly systemIn: string
  /** Behind `hold` or `retry`, where there is a menu. */
  readonly menu: string
  readonly password: string
  /** `{}`: seconds. */
  readonly wrong: string
  /** The menu: what the keys do. */
  readonly choices: {
    readonly retry: string
    readonly start: string
    readonly shell: string
    readonly reboot: string
    readonly poweroff: string
    readonly leave: string
  }
  /** What to do, by the code of the error; others than these get `technician`. */
  readonly advice: {
    readonly network: string
    readonly state: string
    readonly disk: string
    readonly small: string
    readonly site: string
    readonly technician: string
  }
}

/** What the screen says, by language (ISO 639-1). */
export const CATALOGUES = {
  en: {
    title: 'This computer is getting ready',
    starting: 'Looking for the disk',
    checking: 'Checking the disk',
    looking: 'Looking for other computers of this lab',
    restoring: 'Putting back what was changed',
    logging: 'Beginning the record of changes',
    handing: 'Starting the system',
    asking: 'This computer asks to be let in. The technician has to approve it.',
    laying: 'Preparing the disk',
    keeping: 'Storing the start program on the disk',
    name: 'Name: {}',
    compare: 'Compare the code with the one on the master.',
    left: 'about {} left',
    failed: 'This computer cannot start now.',
    code: 'Code: {}',
    details: 'Details:',
    hold: 'Press Enter to try again, or switch it off.',
    retry: 'It tries again in {} s. Enter: at once.',
    unverified: 'The system starts, but its disk was NOT put back. Tell the technician.',
    systems: 'Which system is to start? Press its number.',
    systemIn: 'Without a choice {} starts in {} s. Enter: at once.',
    menu: 'M: menu for technicians.',
    password: 'Password, then Enter. What you type is not shown. Esc: back.',
    wrong: 'Wrong password. Please wait {} s.',
    choices: {
      retry: 'Try again',
      start: 'Start the system, NOT put back',
      shell: 'Shell',
      reboot: 'Restart',
      poweroff: 'Switch off',
      leave: 'Back',
    },
    advice: {
      network: 'Check the network cable, and switch on another computer of this lab.',
      state: 'The part of the disk that belongs to the lab is missing or damaged. Tell the technician.',
      disk: 'The disk is missing, or is another one. Tell the technician.',
      small: 'The disk is too small for what it is to hold. Tell the technician.',
      site: 'This computer belongs to another lab. Tell the technician.',
      technician: 'Tell the technician, with the code below.',
    },
  },
  de: {
    title: 'Dieser Computer wird vorbereitet',
    starting: 'Die Festplatte wird gesucht',
    checking: 'Die Festplatte wird geprüft',
    looking: 'Andere Computer dieses Raums werden gesucht',
    restoring: 'Änderungen werden zurückgenommen',
    logging: 'Die Aufzeichnung der Änderungen beginnt',
    handing: 'Das System startet',
    asking: 'Dieser Computer bittet um Aufnahme. Die Technik muss ihn freigeben.',
    laying: 'Die Festplatte wird eingerichtet',
    keeping: 'Das Startprogramm wird gespeichert',
    name: 'Name: {}',
    compare: 'Den Code mit dem auf dem Hauptrechner vergleichen.',
    left: 'noch etwa {}',
    failed: 'Dieser Computer kann jetzt nicht starten.',
    code: 'Code: {}',
    details: 'Einzelheiten:',
    hold: 'Enter: neuer Versuch. Oder ausschalten.',
    retry: 'Neuer Versuch in {} s. Enter: sofort.',
    unverified: 'Das System startet, aber die Festplatte wurde NICHT zurückgesetzt. Bitte der Technik melden.',
    systems: 'Welches System soll starten? Bitte die Nummer drücken.',
    systemIn: 'Ohne Auswahl startet {} in {} s. Enter: sofort.',
    menu: 'M: Menü für die Technik.',
    password: 'Passwort, dann Enter. Die Eingabe wird nicht angezeigt. Esc: zurück.',
    wrong: 'Falsches Passwort. Bitte {} s warten.',
    choices: {
      retry: 'Neuer Versuch',
      start: 'System starten, NICHT zurückgesetzt',
      shell: 'Shell',
      reboot: 'Neu starten',
      poweroff: 'Ausschalten',
      leave: 'Zurück',
    },
    advice: {
      network: 'Netzwerkkabel prüfen und einen anderen Computer dieses Raums einschalten.',
      state: 'Der Teil der Festplatte, der zum Raum gehört, fehlt oder ist beschädigt. Bitte der Technik melden.',
      disk: 'Die Festplatte fehlt oder ist eine andere. Bitte der Technik melden.',
      small: 'Die Festplatte ist zu klein. Bitte der Technik melden.',
      site: 'Dieser Computer gehört zu einem anderen Raum. Bitte der Technik melden.',
      technician: 'Bitte der Technik melden, mit dem Code unten.',
    },
  },
  fr: {
    title: 'Cet ordinateur se prépare',
    starting: 'Recherche du disque',
    checking: 'Vérification du disque',
    looking: 'Recherche d’autres ordinateurs de la salle',
    restoring: 'Annulation des modifications',
    logging: 'Début du journal des modifications',
    handing: 'Démarrage du système',
    asking: 'Cet ordinateur demande à être admis. Le technicien doit l’approuver.',
    laying: 'Préparation du disque',
    keeping: 'Enregistrement du programme de démarrage',
    name: 'Nom : {}',
    compare: 'Comparez le code avec celui du poste maître.',
    left: 'encore {} environ',
    failed: 'Cet ordinateur ne peut pas démarrer maintenant.',
    code: 'Code : {}',
    details: 'Détails :',
    hold: 'Entrée : nouvel essai. Ou éteignez-le.',
    retry: 'Nouvel essai dans {} s. Entrée : tout de suite.',
    unverified: 'Le système démarre, mais le disque n’a PAS été rétabli. Prévenez le technicien.',
    systems: 'Quel système démarrer ? Appuyez sur son numéro.',
    systemIn: 'Sans choix, {} démarre dans {} s. Entrée : tout de suite.',
    menu: 'M : menu des techniciens.',
    password: 'Mot de passe, puis Entrée. La saisie n’est pas affichée. Échap : retour.',
    wrong: 'Mot de passe faux. Attendez {} s.',
    choices: {
      retry: 'Nouvel essai',
      start: 'Démarrer le système, NON rétabli',
      shell: 'Shell',
      reboot: 'Redémarrer',
      poweroff: 'Éteindre',
      leave: 'Retour',
    },
    advice: {
      network: 'Vérifiez le câble réseau et allumez un autre ordinateur de la salle.',
      state: 'La partie du disque réservée à la salle manque ou est abîmée. Prévenez le technicien.',
      disk: 'Le disque manque ou a été changé. Prévenez le technicien.',
      small: 'Le disque est trop petit. Prévenez le technicien.',
      site: 'Cet ordinateur appartient à une autre salle. Prévenez le technicien.',
      technician: 'Prévenez le technicien et donnez-lui le code ci-dessous.',
    },
  },
  zh: {
    title: '本机正在准备',
    starting: '正在查找磁盘',
    checking: '正在检查磁盘',
    looking: '正在查找本机房的其他电脑',
    restoring: '正在还原被更改的内容',
    logging: '开始记录更改',
    handing: '正在启动系统',
    asking: '本机请求加入机房，需要管理员批准。',
    laying: '正在准备磁盘分区',
    keeping: '正在保存启动程序',
    name: '名称：{}',
    compare: '请与主控机上显示的代码核对。',
    left: '大约还需 {}',
    failed: '本机现在无法启动。',
    code: '代码：{}',
    details: '详情：',
    hold: '按回车键重试，或关机。',
    retry: '{} 秒后重试。按回车键立即重试。',
    unverified: '系统将启动，但磁盘没有还原。请告知管理员。',
    systems: '要启动哪个系统？请按它的编号。',
    systemIn: '如果不选择，{} 将在 {} 秒后启动。按回车键立即启动。',
    menu: 'M：管理员菜单。',
    password: '请输入密码，然后按回车键。输入内容不会显示。Esc：返回。',
    wrong: '密码错误。请等待 {} 秒。',
    choices: {
      retry: '重试',
      start: '启动系统（磁盘没有还原）',
      shell: '命令行',
      reboot: '重新启动',
      poweroff: '关机',
      leave: '返回',
    },
    advice: {
      network: '请检查网线，并打开本机房的另一台电脑。',
      state: '磁盘上属于机房的分区缺失或损坏。请告知管理员。',
      disk: '磁盘缺失，或已被更换。请告知管理员。',
      small: '磁盘容量太小。请告知管理员。',
      site: '本机属于另一个机房。请告知管理员。',
      technician: '请把下面的代码告知管理员。',
    },
  },
} as const satisfies Record<string, Catalogue>

/** A language of the screen. */
export type Language = keyof typeof CATALOGUES
/** All languages of the screen. */
export const LANGUAGES = Object.keys(CATALOGUES) as readonly Language[]
