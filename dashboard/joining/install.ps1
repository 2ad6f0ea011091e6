# Makes this Windows PC a node of a farm, through WSL2: Ray, which carries everything between the farm's PCs, forms clusters on Linux only.
# It looks whether WSL2 is there and mirrors Windows' network, and runs the line for Linux inside it. It changes nothing by itself; what is
# missing it says, with the steps. The whole page is docs/windows.md.
#
# NOTE: the farm's tests parse this script and do not run it: they run on Linux.
param(
    [Parameter(Mandatory = $true)][string]$Head,
    [Parameter(Mandatory = $true)][string]$Code
)
$ErrorActionPreference = 'Stop'
$LinuxSha256 = '@LINUX_SHA256@'

# wsl.exe writes UTF-16 otherwise, which older PowerShells read as letters with gaps.
$env:WSL_UTF8 = '1'

function Stop-WithSteps([string]$Problem, [string[]]$Steps) {
    Write-Host $Problem -ForegroundColor Yellow
    foreach ($Step in $Steps) { Write-Host "  $Step" }
    exit 1
}

if (-not (Get-Command 'wsl.exe' -ErrorAction SilentlyContinue)) {
    Stop-WithSteps 'This PC has no WSL. In a PowerShell run as administrator:' @(
        'wsl --install -d Ubuntu-24.04',
        'Restart Windows, open "Ubuntu" once and choose a user name, then paste the farm''s line again.'
    )
}

$Distributions = @(wsl.exe --list --verbose | Where-Object { $_ -match '\S' } | Select-Object -Skip 1)
$Default = $Distributions | Where-Object { $_ -match '^\s*\*' } | Select-Object -First 1
if (($LASTEXITCODE -ne 0) -or (-not $Default)) {
    Stop-WithSteps 'WSL is here, and no Linux in it:' @(
        'wsl --install -d Ubuntu-24.04',
        'Open "Ubuntu" once and choose a user name, then paste the farm''s line again.'
    )
}
if ($Default.Trim() -notmatch '2$') {
    $Name = ($Default -replace '^\s*\*\s*', '' -split '\s+')[0]
    Stop-WithSteps "Your default Linux, $Name, runs in WSL 1, which cannot use a graphics card:" @(
        "wsl --set-version $Name 2",
        'Then paste the farm''s line again.'
    )
}

$Network = (wsl.exe --exec wslinfo --networking-mode | Out-String).Trim()
if ($Network -ne 'mirrored') {
    Stop-WithSteps "WSL's network is '$Network'. The farm's head could not reach this PC; it must be 'mirrored' (Windows 11 22H2 and newer):" @(
        'notepad $env:USERPROFILE\.wslconfig',
        'Write these two lines into it and save:',
        '    [wsl2]',
        '    networkingMode=mirrored',
        'wsl --shutdown',
        'In a PowerShell run as administrator, so that the head may connect:',
        'Set-NetFirewallHyperVVMSetting -Name ''{40E0AC32-46A5-438A-A0B2-2B479E8F2E90}'' -DefaultInboundAction Allow',
        'Then paste the farm''s line again.'
    )
}

# No double quotes inside: Windows PowerShell loses them on the way to a program.
# An unknown certificate does not matter here: the script is held to its checksum, and brings the farm's authority.
$Curl = if ($Head.StartsWith('https:')) { '-fsSk' } else { '-fsS' }
$Fetch = 'f=$(mktemp /tmp/farm-join.XXXXXX) && curl ' + $Curl + ' --noproxy ''*'' ' + $Head + '/join/install.sh -o $f'
$Check = 'echo ' + $LinuxSha256 + '''  ''$f | sha256sum -c --quiet -'
$Run = 'sh $f ' + $Head + ' ' + $Code
wsl.exe --exec sh -c "$Fetch && $Check && $Run"
exit $LASTEXITCODE
