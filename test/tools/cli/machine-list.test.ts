import { describe, expect, it } from 'vitest'
import { isMeshError } from '../../../protocol/errors.ts'
import { parseMachineList } from '../../../tools/cli/machine-list.ts'

const ONE = { mac: '02:00:5e:10:00:01', name: 'pc01' }

function wrong(text: string): string {
  try {
    parseMachineList('m.csv', text)
    return 'OK'
  } catch (error) {
    if (!isMeshError(error, 'USAGE')) throw error
    return error.message
  }
}

describe('a list of machines', () => {
  it.each([
    ['02:00:5e:10:00:01,pc01', [ONE]],
    ['MAC,name,group\r\n02-00-5E-10-00-01,pc01,lab a\r\n', [{ ...ONE, group: 'lab a' }]],
    ['\uFEFFKarte;Name;Raum\n02005E100001;pc01;"lab; ""a"""\n', [{ ...ONE, group: 'lab; "a"' }]],
    ['# the room\n\n0200.5e10.0001\tpc01\t\n', [ONE]],
    ['02:00:5e:10:00:01 , pc01 ,\n', [ONE]],
    ['"02:00:5e:10:00:01","pc01",""\r', [ONE]],
  ])('is read as spreadsheets write it: %j', (text, expected) => {
    expect(parseMachineList('m.csv', text)).toEqual(expected)
  })

  it.each([
    ['', /names no machine/],
    ['MAC,name\n', /names no machine/],
    ['MAC,name\nMAC,name\n', /line 2: "MAC" is no address/],
    ['02:00:5e:10:00:0,pc01', /line 1: "02:00:5e:10:00:0" is no address/],
    ['02:00:5e:10:00:01', /line 1: "" is no machine name/],
    ['02:00:5e:10:00:01,-x', /line 1: "-x" is no machine name/],
    ['02:00:5e:10:00:01,pc01,\u0007', /line 1: .* is no name of a group/],
    ['02:00:5e:10:00:01,pc01\n02-00-5e-10-00-01,pc02', /line 2: 02:00:5e:10:00:01 stands there twice/],
    ['02:00:5e:10:00:01,pc01\n02-00-5e-10-00-02,PC01', /line 2: PC01 stands there twice/],
  ])('is refused with the line that is wrong: %j', (text, why) => {
    expect(wrong(text)).toMatch(why)
  })

  it('is not read if it is far too long', () => {
    expect(wrong('#'.repeat(2 * 1024 * 1024))).toMatch(/too long/)
  })
})
