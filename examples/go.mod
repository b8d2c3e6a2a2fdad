module sallyport/examples

go 1.26.8

replace sallyport => ../

require sallyport v0.0.0-00010101000000-000000000000
