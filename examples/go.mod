module sallyport/examples

go 1.26.8

replace sallyport => ../
